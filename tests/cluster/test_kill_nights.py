"""Nightly runs that lose a process, or all of them, at any moment: what is current stays whole, and the next one ends.

How many there are is said in ``RAYCL_TEST_KILLS``, and what is drawn by ``RAYCL_TEST_SEED``.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.cluster import nights, processes
from tests.cluster.nights import Night

pytestmark = [pytest.mark.cluster, pytest.mark.long]

NUM_KILLS = int(os.environ.get("RAYCL_TEST_KILLS", "3"))
SEED = int(os.environ.get("RAYCL_TEST_SEED", "0"))
_NOTICED_WITHIN_S = 150
"""A run that lost a process and neither goes on nor ends by then is ended; Ray waits 60 s for its control store."""
_ROLES = ("all", "driver", "worker", "raylet", "gcs_server")


def killed(night: Night, role: str, after_s: float, drawn: random.Random) -> tuple[str | None, list[psutil.Process]]:
    """Run, and kill a process of this role after so long, or all where there is none of it.

    Returns what became of the run, None where it ended well before, and the processes that it left.

    A run whose driver alone is killed leaves the others to themselves, as a machine does that is short of memory.
    """
    leader = processes.start(night.command, processes.as_a_user(night.scratch), night.scratch / "killed.log")
    left: list[psutil.Process] = []
    try:
        leader.wait(after_s)
        return None, left
    except subprocess.TimeoutExpired:
        pass
    try:
        others = processes.of(leader)
        victims = [one for one in others if role_of(one) == role]
        if role == "driver":
            left = others
            leader.kill()
        elif role != "all" and victims:
            drawn.choice(victims).kill()
        else:
            processes.kill(leader)
            return "all were killed", left
        return f"it ended with {leader.wait(_NOTICED_WITHIN_S)}", left
    except psutil.NoSuchProcess:
        return f"that one had ended, and it ended with {leader.wait(_NOTICED_WITHIN_S)}", left
    except subprocess.TimeoutExpired:
        return "it hung", left
    finally:
        if not left:
            processes.kill(leader)


def role_of(process: psutil.Process) -> str:
    """What a process of Ray does."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return "gone"
    name = Path(words[0]).name if words else ""
    return "worker" if name.startswith("ray::") else name


@pytest.fixture(scope="module")
def first(scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A workspace after its first night."""
    folder = tmp_path_factory.mktemp("first")
    nights.write_log(folder)
    made = nights.night(folder, scratch)
    made.to_the_end()
    return made


def test_after_kills_at_random_what_is_current_is_whole_and_the_next_night_ends_as_a_clean_one(
    first: Night, tmp_path: Path
) -> None:
    clean = nights.copied(first, tmp_path / "clean")
    clean_s = clean.to_the_end()
    drawn, kills = random.Random(SEED), 0
    while kills < NUM_KILLS:
        role, after_s = _ROLES[kills % len(_ROLES)], drawn.uniform(0.0, clean_s)
        disturbed = nights.copied(first, tmp_path / "disturbed")
        before, began = disturbed.current().name, time.monotonic()
        outcome, left = killed(disturbed, role, after_s, drawn)
        if outcome is None:  # it was faster than the clean one, and had ended
            clean_s = time.monotonic() - began
            shutil.rmtree(tmp_path / "disturbed")
            continue
        kills += 1
        now = disturbed.current().name
        try:
            again_s = disturbed.to_the_end()
        finally:
            orphans = processes.end(left)
        after = disturbed.current()
        assert after.name != before
        assert now in (before, after.name)
        assert nights.same(clean.current(), after)
        print(
            f"{kills}: {role} killed after {after_s:.1f} s of {clean_s:.1f}, {outcome}; the"
            f" {'new' if now == after.name else 'old'} release is whole; the next night took {again_s:.1f} s"
            f" beside {len(left)} processes left, {orphans} of which were there to the end",
            flush=True,
        )
        shutil.rmtree(tmp_path / "disturbed")
