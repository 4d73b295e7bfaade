"""A cluster of several nodes on this machine, each with ports and a folder of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from raycl.ports import free as free_ports
from tests.cluster import processes

_WITHIN_S = 300
_PORTS = (
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
_HEAD_PORTS = ("port", "dashboard-port", "ray-client-server-port")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cluster:
    """A head; worker nodes are joined by name."""

    folder: Path
    ports: dict[str, int]
    env: dict[str, str]
    num_cpus: int = 1
    """Of the head."""
    metrics: dict[str, int] = field(default_factory=dict)
    """By node: where Prometheus reads."""
    leaders: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """By node: the first of its processes."""

    @property
    def address(self) -> str:
        """Where nodes and drivers join."""
        return f"127.0.0.1:{self.ports['port']}"

    @property
    def dashboard(self) -> str:
        """Where jobs and Serve applications are sent."""
        return f"http://127.0.0.1:{self.ports['dashboard-port']}"

    @property
    def token(self) -> str:
        """What the cluster asks for."""
        return Path(self.env["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="utf-8")

    def start_head(self, name: str = "head") -> subprocess.Popen[bytes]:
        """Start the head; again, after its end, under another name: with the ports that it had, in a folder anew.

        In its old folder Ray would take the nodes that are still there for a head that runs.
        """
        options = [f"--{name}={port}" for name, port in self.ports.items()]
        return self.start(name, "--head", f"--num-cpus={self.num_cpus}", "--dashboard-host=127.0.0.1", *options)

    @contextmanager
    def node(self, name: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker node of one CPU, which is killed at the end at the latest; ``worker`` is a resource of it."""
        leader = self.start(name, f"--address={self.address}", "--num-cpus=1", '--resources={"worker": 1}', **env)
        try:
            yield leader
        finally:
            processes.kill(leader)

    @contextmanager
    def joined(self, name: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """The same, once the head counts it; nodes that start together on a busy machine keep each other from it."""
        number = self.nodes_alive() + 1
        with self.node(name, **env) as leader:
            self.wait_for(number)
            yield leader

    def start(self, name: str, *options: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a node with ports and a folder of its own."""
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.metrics[name] = ports["metrics-export-port"]
        command = [
            *("ray", "start", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats", *options),
            *("--object-store-memory=100000000", f"--temp-dir={self.folder}/{name}"),
            *(f"--{port}={number}" for port, number in ports.items()),
        ]
        leader = self.leaders[name] = processes.start(command, {**self.env, **env}, self.folder / f"{name}.log")
        return leader

    def nodes_alive(self) -> int:
        """How many nodes the head counts."""
        return len(self._ids())

    def drain(self, deadline_s: int) -> None:
        """Say that the worker nodes will be taken away that soon."""
        for node, is_head in self._ids().items():
            if not is_head:
                command = ["ray", "drain-node", "--address", self.address, "--node-id", node]
                reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
                deadline = ["--deadline-remaining-seconds", str(deadline_s)]
                subprocess.run([*command, *reason, *deadline], env=self.env, capture_output=True, check=True)

    def _ids(self) -> dict[str, bool]:
        """Of each node that is alive, whether it is the head; empty where the head does not answer."""
        found = "{n['NodeID']: 'node:__internal_head__' in n['Resources'] for n in ray.nodes() if n['Alive']}"
        script = f"import json, ray; ray.init(logging_level='ERROR'); print(json.dumps({found}))"
        command = [sys.executable, "-W", "ignore", "-c", script]
        env = {**self.env, "RAY_ADDRESS": self.address}
        try:
            ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return {}
        # Ray may tell of a dead node in other lines, after ours too.
        told = [line for line in ended.stdout.splitlines() if line.startswith("{")]
        return dict(json.loads(told[-1])) if ended.returncode == 0 else {}

    def wait_for(self, nodes: int) -> None:
        """Return once so many nodes are there."""
        deadline = time.monotonic() + _WITHIN_S
        while (alive := self.nodes_alive()) != nodes:
            logs = "".join(log.read_text(errors="replace") for log in self.folder.glob("*.log"))
            assert time.monotonic() < deadline, f"{alive} nodes of {nodes}: {logs}"


@contextmanager
def head(num_cpus: int = 1, **more: str) -> Iterator[Cluster]:
    """A head, which takes a node that is silent for 3 seconds for lost; every node's environment has ``more``."""
    # A socket's path has at most 107 bytes, so the folder is not pytest's long one.
    folder = Path(tempfile.mkdtemp(prefix="rn-"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    ports = dict(zip(_HEAD_PORTS, free_ports(len(_HEAD_PORTS)), strict=True))
    env = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "3",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        **more,
    }
    made = Cluster(folder, ports, env, num_cpus)
    made.start_head()
    try:
        made.wait_for(1)
        yield made
    finally:
        for leader in made.leaders.values():
            processes.kill(leader)
        shutil.rmtree(folder, ignore_errors=True)
