"""A program that ends with its parent, and gets its arguments as they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raycl import tether

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")

WITHIN_S = 60.0
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.argv[1], "-c", "import time; print('runs', flush=True); time.sleep(600)"],
                         stdout=subprocess.PIPE, text=True)
assert child.stdout.readline() == "runs\\n"
print(child.pid, flush=True)
time.sleep(600)
"""


def started(script: Path) -> tuple[subprocess.Popen[str], int]:
    """A process, and the one that it started by ``script``, which runs."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    assert tether.write_script(tmp_path / "script", sys.executable)
    parent, child = started(tmp_path / "script")
    assert runs(child)
    assert Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[1] == b"-c"
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    if parent.stdout is not None:
        parent.stdout.close()
    end = time.monotonic() + WITHIN_S
    while runs(child):
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.01)


def test_arguments_and_the_exit_code_are_those_of_the_program(tmp_path: Path) -> None:
    script = tmp_path / "a script"
    assert tether.write_script(script, sys.executable)
    program = "import sys; print(sys.argv[1:]); sys.exit(7)"
    ended = subprocess.run([script, "-c", program, "a b", "", "$HOME'\""], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == (str(["a b", "", "$HOME'\""]) + "\n", 7)


def test_nothing_runs_for_a_parent_that_has_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-I", tether.__file__, str(os.getpid() + 1), sys.executable, "-c", "print('runs')"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
