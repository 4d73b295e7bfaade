"""A Ray head as an operator starts one, with token authentication on."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from raycl.ports import free as free_ports
from tests.cluster import processes
from tests.cluster.processes import Head

_PORTS = (
    "port",
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "ray-client-server-port",
    "dashboard-port",
)
_START_WITHIN_S = 90


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A head of two CPUs in a session of its own, with its own ports, token and folder, killed at the end."""
    # A socket's path has at most 107 bytes, so the folder is not pytest's long one.
    folder = Path(tempfile.mkdtemp(prefix="rh-"))
    token = secrets.token_hex(32)
    token_file = folder / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(token, encoding="utf-8")
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    env = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_API_SERVER_ADDRESS": address,
        # The word `python` of a job means what the head's PATH says, so both take the interpreter of the tests.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [
        *("ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
        *("--num-cpus=2", "--object-store-memory=200000000", "--disable-usage-stats", f"--temp-dir={folder}/t"),
        *(f"--{name}={port}" for name, port in ports.items()),
    ]
    log = folder / "head.log"
    leader = processes.start(command, env, log)
    try:
        deadline = time.monotonic() + _START_WITHIN_S
        while not _answers(address, token):
            assert leader.poll() is None, f"the head ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"no job API at {address}: {log.read_text()}"
            time.sleep(0.2)
        yield Head(address, token, env)
    finally:
        processes.kill(leader)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(address: str, token: str) -> bool:
    try:
        found = httpx.get(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    except httpx.TransportError:
        return False
    return found.status_code == 200
