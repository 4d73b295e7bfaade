"""A machine of the cluster that is lost while it makes pairs costs time and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace
from tests.cluster import builders, nodes, processes
from tests.cluster.nodes import Cluster
from tests.cluster.outputs import assert_same_pairs, contents, different, only_pairs

pytestmark = [pytest.mark.cluster, pytest.mark.long]

NUM_FRAGMENTS, NUM_BUCKETS = 40, 40
_WITHIN_S = 100


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head and a worker node of one CPU each, which take a node that is silent for 3 seconds for lost."""
    with nodes.head() as made, made.node("w1"):
        made.wait_for(2)
        yield made


@dataclass(frozen=True)
class Job:
    """`raycl pairs` of one config on the cluster."""

    config: Path
    root: Path
    cluster: Cluster

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, its output beside the config."""
        command = [sys.executable, "-m", "raycl", "pairs", str(self.config)]
        env = {**self.cluster.env, "RAY_ADDRESS": self.cluster.address}
        return processes.start(command, env, self.log)

    @property
    def log(self) -> Path:
        """What it says."""
        return self.config.with_suffix(".log")

    def done(self, kind: str) -> int:
        """Finished tasks of this kind."""
        return len(list(self.root.glob(f"pairs/*/work/done/{kind}-*.json")))

    def version(self) -> Version:
        """What it made."""
        return only_pairs(Workspace(Store(str(self.root))))


def job(log: Path, folder: Path, cluster: Cluster) -> Job:
    """A job of many small tasks, not started yet."""
    tree = builders.config_tree(log, str(folder / "workspace"))
    tree["pairs"]["num_buckets"] = NUM_BUCKETS
    return Job(builders.write_config(folder / "raycl.yaml", tree), folder / "workspace", cluster)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of many files, so that there are many tasks."""
    folder = tmp_path_factory.mktemp("log")
    builders.write_log(folder, users=8_000, items=1_000, num_files=NUM_FRAGMENTS)
    return folder


@pytest.fixture(scope="module")
def clean(log: Path, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The pairs of a run that nothing disturbed."""
    undisturbed = job(log, tmp_path_factory.mktemp("clean"), cluster)
    ended = undisturbed.start().wait(_WITHIN_S)
    assert ended == 0, undisturbed.log.read_text()
    return undisturbed.version()


@pytest.mark.parametrize(
    ("task", "kind", "number"), [("clean", "fragment", NUM_FRAGMENTS), ("build", "bucket", NUM_BUCKETS)]
)
def test_pairs_outlive_a_node_that_is_killed_at_work(
    cluster: Cluster, clean: Version, log: Path, tmp_path: Path, task: str, kind: str, number: int
) -> None:
    disturbed = job(log, tmp_path, cluster)
    with cluster.node(f"lost-{kind}") as node:
        cluster.wait_for(3)
        running = disturbed.start()
        try:
            deadline = time.monotonic() + _WITHIN_S
            while not (disturbed.done(kind) >= number // 10 and works(node, task)):
                assert running.poll() is None, f"the job ended too early: {disturbed.log.read_text()}"
                assert time.monotonic() < deadline, f"the moment never came: {disturbed.log.read_text()}"
                time.sleep(0.001)
            processes.kill(node)
            assert disturbed.done(kind) < number
            assert running.wait(_WITHIN_S) == 0, disturbed.log.read_text()
        finally:
            processes.kill(running)
    assert_same_pairs(clean, disturbed.version())
    assert different(contents(clean), contents(disturbed.version())) == []
    cluster.wait_for(2)


def works(node: subprocess.Popen[bytes], task: str) -> bool:
    """Whether a task of this name runs on the node: Ray's workers tell in their titles."""
    titles = []
    for process in psutil.Process(node.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            titles += process.cmdline()[:1]
    return any(title.startswith("ray::") and f"({task})" in title for title in titles)
