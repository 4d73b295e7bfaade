"""Running one contender as a program: its wall and CPU seconds and its peak memory, with all its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_SAMPLE_S = 0.1
_SHARE = 0.03
"""Of a core, what looking at the processes takes at most: it may be one of theirs, and Ray has many of them."""


@dataclass(frozen=True)
class Run:
    """What a contender said on its last line, and what it used from its start to its end."""

    said: dict[str, Any]
    wall_s: float
    cpu_s: float
    peak_bytes: int
    """Highest sum over its processes of proportional set sizes: a page that several share counts once."""


def run(command: Sequence[str], cores: Sequence[int], env: Mapping[str, str] | None = None) -> Run:
    """Run ``command`` on these cores; what it wrote is printed and CalledProcessError raised where it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    watched = _Watch(process.pid)
    out, err = process.communicate()
    wall_s = time.perf_counter() - began
    watched.stop()
    if process.returncode:
        sys.stderr.write(out + err)
        raise subprocess.CalledProcessError(process.returncode, list(command), out, err)
    return Run(json.loads(out.splitlines()[-1]), wall_s, watched.cpu_s, watched.peak_bytes)


def cpu_s(root: psutil.Process) -> float:
    """User and system seconds so far of a process and of all that it started and that still run."""
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class _Watch:
    """Samples a process and its descendants until it is stopped."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._cpu: dict[tuple[int, float], float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, args=(psutil.Process(pid),), daemon=True)
        self._thread.start()

    @property
    def cpu_s(self) -> float:
        """User and system seconds, of each process as last seen."""
        return sum(self._cpu.values())

    def stop(self) -> None:
        """End the sampling."""
        self._ended.set()
        self._thread.join()

    def _sample(self, root: psutil.Process) -> None:
        pause_s = _SAMPLE_S
        while not self._ended.wait(pause_s):
            began, total = time.thread_time(), 0
            with suppress(psutil.NoSuchProcess):
                for process in (root, *root.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                        times = process.cpu_times()
                        self._cpu[process.pid, process.create_time()] = times.user + times.system
                        total += _proportional_bytes(process.pid)
            self.peak_bytes = max(self.peak_bytes, total)
            pause_s = max(_SAMPLE_S, (time.thread_time() - began) / _SHARE)


def _proportional_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
