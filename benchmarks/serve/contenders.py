"""The services, started as a user starts them, on cores of their own; and what is asked of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks import measure
from raycl import ports

ROOT = Path(__file__).resolve().parents[2]
_READY_WITHIN_S, _ENDS_WITHIN_S = 180.0, 60.0
_COMPARED = 300


@dataclass(frozen=True)
class Place:
    """A workspace, and the cores of the service and of whoever asks it."""

    workspace: Path
    cores: tuple[int, ...]
    load_cores: tuple[int, ...]

    @property
    def requests(self) -> Path:
        return self.workspace / "requests.jsonl"


@dataclass(frozen=True)
class Served:
    """A running service."""

    place: Place
    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """User and system seconds of all its processes so far."""
        return measure.cpu_s(self.process)

    def load(self, connections: int, seconds: float, **more: Any) -> dict[str, Any]:
        """What ``load`` says of so many connections for so long; RuntimeError where a request failed."""
        found = self.tried(connections, seconds, **more)
        if found["failures"]:
            raise RuntimeError(f"{found['failures']} of {found['requests']} requests failed: {found['failed_with']}")
        return found

    def tried(self, connections: int, seconds: float, **more: Any) -> dict[str, Any]:
        """``load``, whatever fails."""
        order = {"host": "127.0.0.1", "port": self.port, "requests": str(self.place.requests), **more}
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.serve.load"],
            input=json.dumps({**order, "connections": connections, "seconds": seconds}),
            env=_environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, self.place.load_cores),
        )
        if ended.returncode:
            raise RuntimeError(f"the load ended with {ended.returncode}:\n{ended.stderr[-3_000:]}")
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    def answers(self) -> list[dict[str, Any]]:
        """Those to the first requests, one after the other."""
        found = []
        for line in self.place.requests.read_text().splitlines()[:_COMPARED]:
            asked = urllib.request.Request(
                f"http://127.0.0.1:{self.port}/v1/retrieve", line.encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=30.0) as response:
                found.append(json.load(response))
        return found


@contextlib.contextmanager
def by_hand(place: Place, kind: str = "faiss") -> Iterator[Served]:
    """FastAPI with ``faiss`` or ``qdrant`` in one process."""
    (port,) = ports.free(1)
    command = [sys.executable, "-m", "benchmarks.serve.with_fastapi", str(place.workspace), str(port), kind]
    with _running(command, place, port, "/docs") as process:
        yield Served(place, port, process)


@contextlib.contextmanager
def raycl(place: Place, listen: str = "replicas", replicas: int = 1, **serving: Any) -> Iterator[Served]:
    """``raycl serve`` with so many replicas."""
    (port,) = ports.free(1)
    config = place.workspace / f"serve-{port}.yaml"
    tree = {
        "workspace": str(place.workspace),
        "logs": [{"uri": "none"}],
        "ray": {"num_cpus": max(replicas + 1, len(place.cores)), "object_store_bytes": 100_000_000},
        "serving": {
            "port": port,
            "listen": listen,
            "min_replicas": replicas,
            "max_replicas": replicas,
            **serving,
        },
    }
    config.write_text(yaml.safe_dump(tree))
    with _running([sys.executable, "-m", "raycl", "serve", str(config)], place, port, "/readyz") as process:
        yield Served(place, port, process)


@contextlib.contextmanager
def _running(command: Sequence[str], place: Place, port: int, ready: str) -> Iterator[psutil.Process]:
    log = place.workspace / "service.log"
    with log.open("w") as told:
        process = subprocess.Popen(
            command,
            env=_environment(),
            cwd=ROOT,
            stdout=told,
            stderr=told,
            preexec_fn=lambda: os.sched_setaffinity(0, place.cores),
        )
    try:
        end = time.monotonic() + _READY_WITHIN_S
        while not _answers(f"http://127.0.0.1:{port}{ready}"):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(command)} does not answer:\n{log.read_text()[-3_000:]}")
            time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0):
            return True
    except (OSError, urllib.error.URLError):
        return False


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
