"""Run a program that ends when its parent does, however that ends: ``python tether.py PARENT PROGRAM ARGUMENT...``.

HAProxy is a child of Serve's proxy. Where ``raycl serve`` is killed, Ray's processes notice and end; HAProxy would live
on, and hold the port of the next service.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def run(parent: int, command: list[str]) -> None:
    """Become ``command``, which the kernel kills when the thread that started this process ends; Linux only.

    Nothing runs where ``parent`` has ended already.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel does not tell a process that its parent ended")
    if os.getppid() == parent:
        os.execv(command[0], command)  # noqa: S606  # there is no shell to be tricked


def write_script(path: Path, program: str) -> bool:
    """Write an executable that runs ``program`` so, with its arguments; False where such a file cannot be run."""
    words = shlex.join([sys.executable, "-I", __file__])
    path.write_text(f'#!/bin/sh\nexec {words} "$PPID" {shlex.quote(program)} "$@"\n', encoding="utf-8")
    path.chmod(0o700)
    return os.access(path, os.X_OK)


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2:])
