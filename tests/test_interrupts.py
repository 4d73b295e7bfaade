"""A command that a signal ends: soon, with one line that says how to go on, and with nothing left running."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from raycl import config_file
from tests import tiny as builders
from tests.cluster import processes

pytestmark = pytest.mark.long

_WITHIN_S = 90
_ENDS_WITHIN_S = 40
"""Less than the minute for which Ray looks for a head that is gone."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config whose training takes minutes."""
    builders.write_log(tmp_path / "log")
    tree = builders.tiny_tree(tmp_path)
    tree["train"] |= {"epochs": 100_000}
    tree["ray"] = {"num_cpus": 2, "object_store_bytes": 100_000_000}
    path = tmp_path / "raycl.yaml"
    path.write_text(config_file.dump(config_file.check(tree)), encoding="utf-8")
    return path


def ended(
    scratch: Path, command: list[str], reached: Callable[[str], bool], number: signal.Signals
) -> tuple[int, list[str]]:
    """Run ``command``, send the signal to its whole process group once its output is enough; its code and its lines."""
    log = scratch / "log"
    env = processes.as_a_user(scratch)
    leader = processes.start([sys.executable, "-m", "raycl", *command], env, log)
    try:
        wait_for(lambda: leader.poll() is not None or reached(log.read_text()), _WITHIN_S, log)
        assert leader.poll() is None, log.read_text()
        family = psutil.Process(leader.pid).children(recursive=True)
        os.killpg(leader.pid, number)
        wait_for(lambda: leader.poll() is not None, _ENDS_WITHIN_S, log)
        wait_for(lambda: not any(one.is_running() and one.status() != "zombie" for one in family), _ENDS_WITHIN_S, log)
    finally:
        processes.kill(leader)
    return leader.returncode, log.read_text().splitlines()


def wait_for(reached: Callable[[], bool], seconds: float, log: Path) -> None:
    """Return once ``reached`` holds; fail with the log where it never does."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_says_how_to_go_on(scratch: Path, config: Path, number: signal.Signals) -> None:
    command = ["run", str(config)]
    code, lines = ended(scratch, command, lambda said: "epoch 20:" in said, number)
    assert code == 1
    assert lines[-1] == "raycl: interrupted; run the same command again to go on"
    assert not any("Traceback" in line for line in lines), "\n".join(lines)


def test_a_service_that_is_terminated_ends_well(scratch: Path, config: Path) -> None:
    short = ["--set", "train.epochs=1"]
    code, _ = ended(scratch, ["run", str(config), *short], lambda said: "epoch 1:" in said, signal.SIGCONT)
    assert code == 0
    code, lines = ended(scratch, ["serve", str(config), *short], lambda said: "serving at" in said, signal.SIGTERM)
    assert code == 0
    assert not any("Traceback" in line for line in lines), "\n".join(lines)
