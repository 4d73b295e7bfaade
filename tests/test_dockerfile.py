"""The image has what the lock says, nothing to build with, and no root; Docker itself is not needed to see that."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
BUILD_TOOLS = r"\b(gcc|g\+\+|build-essential|cmake|make|git|curl)\b"


def stages() -> dict[str, tuple[str, list[str]]]:
    """Of each stage: what it begins with, and its instructions, each in one line."""
    found: dict[str, tuple[str, list[str]]] = {}
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    for line in filter(None, lines):
        if begins := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[begins[2]] = (begins[1], [])
            name = begins[2]
        elif found:
            found[name][1].append(line)
    return found


def instructions(stage: str) -> list[str]:
    """Those of a stage and of the stages that it begins with."""
    begins, own = stages()[stage]
    return [*(instructions(begins) if begins in stages() else []), *own]


def test_there_is_an_image_for_cpus_and_one_for_gpus_and_cpus_are_the_default() -> None:
    assert list(stages())[-1] == "cpu"
    for target in ("cpu", "gpu"):
        begins, own = stages()[target]
        assert (begins, own) == ("runtime", [f"COPY --from=build-{target} /opt/raycl /opt/raycl"])


def test_the_base_is_pinned_and_of_a_python_that_raycl_runs_on() -> None:
    (version,) = re.findall(r"^ARG BASE=python:(\d+\.\d+)\.\d+-slim-bookworm$", TEXT, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]
    assert {begins for begins, _ in stages().values()} <= {"${BASE}", *stages()}


def test_every_package_is_installed_by_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = {line.split("==")[0].lower() for line in lock.splitlines() if "==" in line and not line.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = (
        project["dependencies"] + project["optional-dependencies"]["cpu"] + project["optional-dependencies"]["delta"]
    )
    assert {re.split(r"[\[<>=]", one)[0].lower() for one in asked} <= locked
    for line in (line for _, own in stages().values() for line in own if "pip install" in line):
        for command in (part for part in line.split("&&") if "pip install" in part):
            assert "--constraint requirements.lock" in command or "requirements.lock)" in command
    (faiss,) = re.findall(r"^ARG FAISS_GPU=(\S+)$", TEXT, re.MULTILINE)
    assert f"faiss-cpu=={faiss}" in lock


def test_what_runs_is_no_root_checks_its_health_and_has_nothing_to_build_with() -> None:
    for target in ("cpu", "gpu"):
        found = instructions(target)
        (user,) = [line for line in found if line.startswith("USER ")]
        assert user == "USER 1000:1000"
        assert sum(line.startswith("HEALTHCHECK ") for line in found) == 1
        assert not re.search(BUILD_TOOLS, "\n".join(found))
        assert any("pip uninstall --yes setuptools wheel pip" in line for line in found)


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    copied = set()
    for line in (line for _, own in stages().values() for line in own if line.startswith("COPY ")):
        words = [word for word in line.split()[1:] if not word.startswith("--")]
        if "--from=" not in line:
            copied |= set(words[:-1])
    assert copied == kept
    assert all((ROOT / path).exists() for path in copied)
