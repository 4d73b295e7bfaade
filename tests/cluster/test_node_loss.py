"""A machine of the cluster that is lost while it makes pairs costs time and nothing else."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace
from tests.cluster import builders, processes
from tests.cluster.outputs import assert_same_pairs, contents, different, only_pairs

pytestmark = [pytest.mark.cluster, pytest.mark.long]

NUM_FRAGMENTS, NUM_BUCKETS = 40, 40
_WITHIN_S = 100
_PORTS = (
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
_HEAD_PORTS = ("port", "dashboard-port", "ray-client-server-port")


@dataclass(frozen=True)
class Cluster:
    """A head and one worker node; further nodes are joined by name."""

    folder: Path
    address: str
    env: dict[str, str]

    @contextmanager
    def node(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker node of one CPU, which is killed at the end at the latest."""
        leader = self.start(name, f"--address={self.address}", "--num-cpus=1")
        try:
            yield leader
        finally:
            processes.kill(leader)

    def start(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a node with ports and a folder of its own."""
        ports = zip(_PORTS, processes.free_ports(len(_PORTS)), strict=True)
        command = [
            *("ray", "start", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats", *options),
            *("--object-store-memory=100000000", f"--temp-dir={self.folder}/{name}"),
            *(f"--{port}={number}" for port, number in ports),
        ]
        return processes.start(command, self.env, self.folder / f"{name}.log")

    def nodes_alive(self) -> int:
        """How many nodes the head counts."""
        script = "import ray; ray.init(logging_level='ERROR'); print(sum(node['Alive'] for node in ray.nodes()))"
        command = [sys.executable, "-W", "ignore", "-c", script]
        env = {**self.env, "RAY_ADDRESS": self.address}
        ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        return int(ended.stdout.split()[-1]) if ended.returncode == 0 else 0

    def wait_for(self, nodes: int) -> None:
        """Return once so many nodes are there."""
        deadline = time.monotonic() + _WITHIN_S
        while (alive := self.nodes_alive()) != nodes:
            logs = "".join(log.read_text(errors="replace") for log in self.folder.glob("*.log"))
            assert time.monotonic() < deadline, f"{alive} nodes of {nodes}: {logs}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head and a worker node of one CPU each, which take a node that is silent for 3 seconds for lost."""
    # A socket's path has at most 107 bytes, so the folder is not pytest's long one.
    folder = Path(tempfile.mkdtemp(prefix="rn-"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    ports = dict(zip(_HEAD_PORTS, processes.free_ports(len(_HEAD_PORTS)), strict=True))
    env = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "3",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    made = Cluster(folder, f"127.0.0.1:{ports['port']}", env)
    options = [f"--{name}={port}" for name, port in ports.items()]
    head = made.start("head", "--head", "--num-cpus=1", "--dashboard-host=127.0.0.1", *options)
    try:
        made.wait_for(1)
        with made.node("w1"):
            made.wait_for(2)
            yield made
    finally:
        processes.kill(head)
        shutil.rmtree(folder, ignore_errors=True)


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
