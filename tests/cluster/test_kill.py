"""A run that loses its whole machine half way goes on when it is started again, and ends as one clean run does."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from raycl.config_file import load
from raycl.storage import pointer
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace
from tests.cluster import builders, processes
from tests.cluster.outputs import contents, different

pytestmark = [pytest.mark.cluster, pytest.mark.long]

NUM_FRAGMENTS, NUM_BUCKETS, NUM_SHARDS, EPOCHS = 24, 48, 48, 6
_WITHIN_S = 120


@dataclass(frozen=True)
class Night:
    """``raycl run`` of one config in processes of its own."""

    config: Path
    scratch: Path

    @property
    def workspace(self) -> Workspace:
        """Where it works."""
        return Workspace(Store(load(self.config).workspace))

    @property
    def root(self) -> Path:
        """The folder of its workspace."""
        return Path(self.workspace.store.uri)

    def only(self, stage: str) -> Version:
        """The one version of a stage; a second one, finished or not, would be work that was done twice."""
        (name,) = self.versions(stage)
        return self.workspace.open(stage, name)

    def versions(self, stage: str) -> list[str]:
        """Versions of a stage, finished or not."""
        return [folder.name for folder in (self.root / stage).iterdir() if folder.name != "published"]

    def seed(self, other: Night, *stages: str) -> None:
        """Take over these finished stages of another run of the same log."""
        for stage in stages:
            shutil.copytree(other.root / stage, self.root / stage)

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Run until it ends, one way or another."""
        return subprocess.run(
            self._command,
            env=processes.as_a_user(self.scratch),
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )

    def to_the_end(self) -> str:
        """Run until it ends well, and return what it said on standard error."""
        ended = self.ended()
        assert ended.returncode == 0, ended.stderr
        return ended.stderr

    def killed_when(self, reached: Callable[[], bool], after: Callable[[], None] = lambda: None) -> None:
        """Run until ``reached`` holds, and kill every process ``after`` that was done; the driver stands still then."""
        log = self.scratch / "killed.log"
        leader = processes.start(self._command, processes.as_a_user(self.scratch), log)
        try:
            deadline = time.monotonic() + _WITHIN_S
            while not reached():
                assert leader.poll() is None, f"the run ended too early: {log.read_text()}"
                assert time.monotonic() < deadline, f"the moment never came: {log.read_text()}"
                time.sleep(0.002)
            leader.send_signal(signal.SIGSTOP)
            after()
        finally:
            processes.kill(leader)

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-m", "raycl", "run", str(self.config)]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of many files, so that there are many tasks to be killed between."""
    folder = tmp_path_factory.mktemp("log")
    builders.write_log(folder, users=600, items=400, num_files=NUM_FRAGMENTS)
    return folder


@pytest.fixture(scope="module")
def clean(log: Path, scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A run that nothing disturbed."""
    made = night(log, scratch, tmp_path_factory.mktemp("clean"))
    made.to_the_end()
    return made


@pytest.fixture
def disturbed(log: Path, scratch: Path, tmp_path: Path) -> Night:
    """A run of the same log in a workspace of its own, not started yet."""
    return night(log, scratch, tmp_path)


def night(log: Path, scratch: Path, folder: Path) -> Night:
    """A run with its files under ``folder``: many small tasks, many small steps."""
    tree = builders.config_tree(log, str(folder / "workspace"))
    tree["pairs"]["num_buckets"] = NUM_BUCKETS
    tree["train"] |= {"epochs": EPOCHS, "global_batch_size": 64, "checkpoint_steps": 20}
    tree["index"] = {"num_shards": NUM_SHARDS, "items_per_block": 20}
    return Night(builders.write_config(folder / "raycl.yaml", tree), scratch)


def test_pairs_killed_between_fragments_and_again_between_buckets_are_those_of_a_clean_run(
    clean: Night, disturbed: Night
) -> None:
    disturbed.killed_when(lambda: len(done(disturbed, "pairs", "fragment")) >= NUM_FRAGMENTS // 3)
    assert_invisible(disturbed, "pairs")
    assert 0 < len(done(disturbed, "pairs", "fragment")) < NUM_FRAGMENTS

    disturbed.killed_when(lambda: len(done(disturbed, "pairs", "bucket")) >= NUM_BUCKETS // 3)
    assert_invisible(disturbed, "pairs")
    buckets = done(disturbed, "pairs", "bucket")
    assert 0 < len(buckets) < NUM_BUCKETS
    kept = written(disturbed, [f"pairs/*/sequences/part-{number:06d}.parquet" for number in buckets])

    disturbed.to_the_end()
    assert written(disturbed, kept) == kept
    assert_same(clean, disturbed)


def test_a_second_run_is_refused_while_the_first_lives_and_goes_on_when_it_is_killed(
    clean: Night, disturbed: Night
) -> None:
    refused: list[subprocess.CompletedProcess[str]] = []
    disturbed.killed_when(
        lambda: 0 < len(done(disturbed, "pairs", "fragment")) < NUM_FRAGMENTS,
        after=lambda: refused.append(disturbed.ended()),
    )
    assert refused[0].returncode == 2
    (name,) = disturbed.versions("pairs")
    assert f"/pairs/{name} is being made by process" in refused[0].stderr.replace("\n", " ")
    assert "Traceback" not in refused[0].stderr

    disturbed.to_the_end()
    assert_same(clean, disturbed)


def test_training_killed_within_its_second_epoch_goes_on_to_the_very_towers_of_a_clean_run(
    clean: Night, disturbed: Night
) -> None:
    disturbed.seed(clean, "pairs")

    def within_the_second_epoch() -> bool:
        return any(progress["epoch"] >= 1 and progress["epoch_step"] > 0 for progress in checkpoints(disturbed))

    disturbed.killed_when(within_the_second_epoch)
    assert_invisible(disturbed, "towers")
    assert within_the_second_epoch()
    assert all(progress["epoch"] < EPOCHS for progress in checkpoints(disturbed))

    said = disturbed.to_the_end()
    assert "epoch 1:" not in said
    assert f"epoch {EPOCHS}:" in said
    assert_same(clean, disturbed)


def test_an_index_killed_between_shards_is_the_one_of_a_clean_run(clean: Night, disturbed: Night) -> None:
    disturbed.seed(clean, "pairs", "towers", "evaluations")
    disturbed.killed_when(lambda: len(done(disturbed, "releases", "shard")) >= NUM_SHARDS // 3)
    assert_invisible(disturbed, "releases")
    assert pointer.current(disturbed.workspace.store) is None
    shards = done(disturbed, "releases", "shard")
    assert 0 < len(shards) < NUM_SHARDS
    kept = written(disturbed, [f"releases/*/shards/{number:05d}.faiss" for number in shards])

    disturbed.to_the_end()
    assert written(disturbed, kept) == kept
    assert_same(clean, disturbed)


def done(run: Night, stage: str, kind: str) -> list[int]:
    """Numbers of the finished tasks of a version that is being made."""
    records = run.root.glob(f"{stage}/*/work/done/{kind}-*.json")
    return sorted(int(record.stem.rpartition("-")[2]) for record in records)


def checkpoints(run: Night) -> list[dict[str, int]]:
    """How far each complete checkpoint has come; one that is dropped meanwhile is passed over."""
    found = []
    for path in run.root.glob("towers/*/checkpoints/*/progress.json"):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8"))["progress"])
        except FileNotFoundError:
            continue
    return found


def written(run: Night, patterns: list[str] | dict[str, int]) -> dict[str, int]:
    """When each file of these patterns was written; a file that is written again has another time."""
    found = [path for pattern in patterns for path in run.root.glob(pattern)]
    assert len(found) == len(patterns)
    return {str(path.relative_to(run.root)): path.stat().st_mtime_ns for path in found}


def assert_invisible(run: Night, stage: str) -> None:
    """The half that the killed run left is on disk, and no reader takes it for a version."""
    assert len(run.versions(stage)) == 1
    assert run.workspace.finished(stage) == []


def assert_same(clean: Night, disturbed: Night) -> None:
    """Both runs left one version a stage, the same in all that does not tell when and how fast it was made."""
    for stage in ("pairs", "towers", "evaluations", "releases"):
        expected, found = clean.only(stage), disturbed.only(stage)
        assert found.manifest.counts == expected.manifest.counts
        assert found.manifest.dropped == expected.manifest.dropped
        assert different(contents(expected), contents(found)) == []
    expected_losses, losses = (run.only("towers").manifest.facts["losses"] for run in (clean, disturbed))
    # Losses are summed in runs that end at a checkpoint or after some time, so the last digits may differ.
    assert losses == pytest.approx(expected_losses, rel=1e-12)
    assert disturbed.only("evaluations").manifest.facts == clean.only("evaluations").manifest.facts
    release = disturbed.only("releases")
    assert pointer.current(disturbed.workspace.store) == pointer.Pointer(1, release.name)
    release.manifest.verify(release.store)
