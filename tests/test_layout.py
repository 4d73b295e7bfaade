"""Rules that hold for the tree as a whole, so that it can be read as README.md draws it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "raycl").rglob("*.py"))
MAX_LINES = 400
NEVER_TRACKED = {".git", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "__pycache__"}

# Each runs, or may run, what a file says.
UNSAFE = {
    *(f"{module}.{name}" for module in ("pickle", "cloudpickle", "dill", "joblib") for name in ("load", "loads")),
    "pickle.Unpickler",
    "torch.load",
    "yaml.full_load",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "eval",
    "exec",
}

# Import every module named on the command line; say so as soon as one has brought Ray along.
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "ray" in sys.modules:
        sys.exit(f"{name} imports ray")
"""


def files() -> list[str]:
    """Every file of the checkout that is there and not ignored, as a path relative to the root."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        return sorted(path for path in listed if path and (ROOT / path).is_file())
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not NEVER_TRACKED & set(path.parts))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that the code names in an import, wherever it stands, or hands to an import function as a word."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (str(part.value) for part in node.args if isinstance(part, ast.Constant))


def called(tree: ast.AST) -> Iterator[str]:
    """Full names of what the code calls or hands on, with the names of imports resolved."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, dot, rest = ast.unparse(node).partition(".")
            yield f"{names.get(first, first)}{dot}{rest}"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import ray.data", True),
        ("def late():\n    from ray.train import report", True),
        ("import numpy, ray as r", True),
        ("import importlib\nimportlib.import_module('ray.serve')", True),
        ("from raycl import ray_runtime", False),
        ("import raycl.ray_runtime, xray", False),
        ("from . import ray", False),
        ("word = 'import ray'  # import ray", False),
    ],
)
def test_an_import_of_ray_is_seen_wherever_it_stands(code: str, found: bool) -> None:
    assert any(name.partition(".")[0] == "ray" for name in imported(ast.parse(code))) is found


def test_ray_is_imported_by_files_that_say_so_in_their_name() -> None:
    importers = {
        path
        for path in PACKAGE
        if any(name.partition(".")[0] == "ray" for name in imported(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert importers, "no file imports ray: this test looks in the wrong place"
    assert {str(path.relative_to(ROOT)) for path in importers if not path.name.startswith("ray_")} == set()


def test_no_other_module_brings_ray_along() -> None:
    modules = [module_name(path) for path in PACKAGE if not path.name.startswith("ray_") and path.stem != "__main__"]
    assert {"raycl.cli", "raycl.journey", "raycl.data.sources", "raycl.training.loop"} <= set(modules)
    found = subprocess.run([sys.executable, "-c", IMPORT_ALL, *modules], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("module", ["raycl.cli", "raycl.journey", "raycl.config_file"])
def test_the_first_modules_of_a_command_alone_bring_no_ray_along(module: str) -> None:
    found = subprocess.run([sys.executable, "-c", IMPORT_ALL, module], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_no_file_of_the_package_is_long() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE}
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in PACKAGE if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import pickle\npickle.load(f)", {"pickle.load"}),
        ("import torch as t\nt.load(f)", {"torch.load"}),
        ("from yaml import load as read\nread(f)", {"yaml.load"}),
        ("import pickle\nloader = pickle.loads", {"pickle.loads"}),
        ("eval(text)", {"eval"}),
        ("import yaml, json\nyaml.safe_load(f)\njson.load(f)\n'pickle.load'", set()),
        ("model.eval()", set()),
    ],
)
def test_unsafe_loading_is_seen_under_any_name(code: str, found: set[str]) -> None:
    assert set(called(ast.parse(code))) & UNSAFE == found


def test_nothing_in_the_tree_loads_what_could_run_code() -> None:
    sources = [path for path in files() if path.endswith(".py")]
    assert "tests/test_layout.py" in sources
    found = {path: set(called(ast.parse((ROOT / path).read_text(encoding="utf-8")))) & UNSAFE for path in sources}
    assert {path: names for path, names in found.items() if names} == {}


def drawn() -> dict[str, str]:
    """Paths and phrases of the tree in README.md, between its two marks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- tree:start -->\n```text\n(.*?)\n```\n<!-- tree:end -->", text, re.DOTALL)
    assert block, "README.md has no fenced text block between <!-- tree:start --> and <!-- tree:end -->"
    lines = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in block[1].splitlines()]
    assert [line[0] for line in lines if len(line) != 2] == [], "a line of the tree has no phrase"
    assert len({line[0] for line in lines}) == len(lines), "a path stands in the tree twice"
    return dict(lines)


def expected() -> set[str]:
    """What the tree must list: packages and manifests as their folder, tests and benchmarks as one, files by path."""
    found = {"benchmarks/", "tests/"}
    for path in files():
        if path.startswith("raycl/") and path.endswith(".py"):
            found.add(path.removesuffix("__init__.py"))
        elif path.startswith("k8s/"):
            found.add(f"{Path(path).parent}/")
        elif path.startswith(("jobs/", "deploy/")):
            found.add(path)
    return found | {"Makefile", "pyproject.toml", "requirements.lock", ".ci/run"}


def test_the_tree_in_the_readme_is_the_tree() -> None:
    listed, there = set(drawn()), expected()
    assert sorted(listed - there) == [], "README.md lists files that are not there"
    assert sorted(there - listed) == [], "README.md does not list these files"


def test_the_files_that_the_readme_must_name_are_there() -> None:
    assert [path for path in expected() if not (ROOT / path).exists()] == []
