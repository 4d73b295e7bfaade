"""Processes in a session of their own, and their end with everything that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Head:
    """A running head: where its job API answers, its token, and the environment that commands need to reach it."""

    address: str
    token: str
    env: dict[str, str]


def start(command: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``command`` as the leader of a new session, its output in ``log``."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def as_a_user(scratch: Path) -> dict[str, str]:
    """What a command inherits, with Ray's sessions under ``scratch``.

    Without RAY_AUTH_MODE it does as it does for a user: it makes a token of its own.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    return {**inherited, "RAY_TMPDIR": str(scratch), "TMPDIR": str(scratch)}


def kill(leader: subprocess.Popen[bytes]) -> None:
    """End the session of ``leader`` with SIGKILL, as the loss of a machine would, and wait until nothing is left.

    Ray's workers are in process groups of their own, and a job's driver is in a session of its own, so what counts is
    the leader's session and its descendants.
    """
    found = _descendants(leader.pid)
    while alive := [one for one in found | _session(leader.pid) if _runs(one)]:
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                found |= {process, *process.children(recursive=True)}
                process.send_signal(signal.SIGKILL)
        leader.poll()
        time.sleep(0.01)
    leader.wait()


def of(leader: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """What runs in the session of ``leader`` or was started by it, without itself, the oldest first."""
    found = (_descendants(leader.pid) | _session(leader.pid)) - {psutil.Process(leader.pid)}
    return sorted((one for one in found if _runs(one)), key=lambda one: one.pid)


def end(found: Sequence[psutil.Process]) -> int:
    """End these processes, and return how many of them still ran."""
    alive = [one for one in found if _runs(one)]
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive)
    return len(alive)


def _descendants(pid: int) -> set[psutil.Process]:
    try:
        return {psutil.Process(pid), *psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def _session(leader: int) -> set[psutil.Process]:
    found = set()
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader:
                found.add(process)
    return found


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
