"""The commands of the README, run word for word against a real head."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from raycl.storage import pointer
from raycl.storage.store import Store
from raycl.storage.versions import Workspace
from tests.cluster import builders
from tests.cluster.processes import Head

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("pairs", "towers", "evaluations", "releases")
LEAVES = {
    "make_pairs.py": "pairs",
    "train_towers.py": "towers",
    "evaluate.py": "evaluations",
    "build_index.py": "releases",
    "publish.py": None,
}
"""The stage of the version that each job adds."""


def documented() -> tuple[dict[str, str], list[str]]:
    """The variables that the README's block exports, and its commands in their order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- jobs:start -->\s*```bash\n(.*?)```\s*<!-- jobs:end -->", text, re.DOTALL)
    assert block, "README.md has no bash block between <!-- jobs:start --> and <!-- jobs:end -->"
    lines = [line.strip() for line in block[1].replace("\\\n", " ").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    exports = [word for line in lines if line.startswith("export ") for word in shlex.split(line)[1:]]
    pairs = (word.partition("=") for word in exports)
    return {name: value for name, _, value in pairs}, [line for line in lines if not line.startswith("export ")]


def script(command: str) -> str:
    """The job that a command submits."""
    found = re.fullmatch(
        r'ray job submit --runtime-env-json "\$RAYCL_ENV" -- python jobs/(\w+\.py) jobs/recipes/\S+\.yaml', command
    )
    assert found, f"not a submission of a job with a recipe: {command}"
    return found[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of the recipe's columns."""
    folder = tmp_path_factory.mktemp("data")
    builders.write_movies(folder, users=3_000, items=600)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the jobs need of the repository."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("raycl", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_every_job_is_documented_once_in_the_order_of_the_stages() -> None:
    exported, commands = documented()
    assert set(exported) == {"RAY_API_SERVER_ADDRESS", "RAYCL_ENV"}
    assert set(json.loads(exported["RAYCL_ENV"])["env_vars"]) == {"RAYCL_DATA", "RAYCL_WORKSPACE"}
    assert [script(command) for command in commands] == [*LEAVES, "nightly.py"]
    others = {"submit.py", "doctor.py"}  # told of in jobs/README.md
    assert {path.name for path in (ROOT / "jobs").glob("*.py")} == {*LEAVES, "nightly.py", *others}


@pytest.mark.cluster
def test_the_job_api_refuses_a_caller_without_the_token(head: Head) -> None:
    assert httpx.get(f"{head.address}/api/jobs/", trust_env=False).status_code == 401


@pytest.mark.cluster
@pytest.mark.long
def test_the_documented_jobs_end_in_a_published_release_and_the_nightly_one_in_the_next(
    head: Head, checkout: Path, data: Path, tmp_path: Path
) -> None:
    """Word for word but for the two places that the README leaves to the reader: data and workspace."""
    store = Store(str(tmp_path / "movies"))
    exported, (*by_stage, nightly) = documented()
    runtime_env = json.loads(exported["RAYCL_ENV"])
    runtime_env["env_vars"] = {"RAYCL_DATA": str(data), "RAYCL_WORKSPACE": str(tmp_path)}
    env = {**head.env, "RAYCL_ENV": json.dumps(runtime_env)}
    expected = dict.fromkeys(STAGES, 0)
    for command in by_stage:
        assert pointer.current(store) is None
        submit(command, checkout, env)
        if stage := LEAVES[script(command)]:
            expected[stage] += 1
        assert finished(store) == expected, command
    first = pointer.current(store)
    assert first is not None
    assert [first.release] == Workspace(store).finished("releases")

    builders.write_movies(data, users=3_100, items=600, seed=1)
    submit(nightly, checkout, env)
    assert finished(store) == dict.fromkeys(STAGES, 2)
    assert pointer.current(store) == pointer.Pointer(2, Workspace(store).finished("releases")[-1])


def submit(command: str, folder: Path, env: dict[str, str]) -> None:
    """Run one command in ``folder``; it ends with 0 and says that the job succeeded."""
    ended = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    assert re.search(r"Job '\S+' succeeded", said), said


def finished(store: Store) -> dict[str, int]:
    """Finished versions of each stage."""
    return {stage: len(Workspace(store).finished(stage)) for stage in STAGES}
