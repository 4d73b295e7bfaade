"""Nightly runs that lose a process, or all of them, at any moment: what is current stays whole, and the next one ends.

How many there are is said in ``RAYCL_TEST_KILLS``, and what is drawn by ``RAYCL_TEST_SEED``.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl.config_file import load
from raycl.index import release
from raycl.storage import pointer
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace
from tests.cluster import builders, processes
from tests.cluster.outputs import contents, different

pytestmark = [pytest.mark.cluster, pytest.mark.long]

NUM_KILLS = int(os.environ.get("RAYCL_TEST_KILLS", "3"))
SEED = int(os.environ.get("RAYCL_TEST_SEED", "0"))
USERS, ITEMS = 60, 48
_WITHIN_S = 180
_NOTICED_WITHIN_S = 60
"""A run that lost a process and neither goes on nor ends by then is ended."""
_ROLES = ("all", "driver", "worker", "raylet", "gcs_server")


@dataclass(frozen=True)
class Night:
    """``raycl nightly`` of one config in processes of its own."""

    config: Path
    scratch: Path

    @property
    def workspace(self) -> Workspace:
        """Where it works."""
        return Workspace(Store(load(self.config).workspace))

    def to_the_end(self) -> float:
        """Run until it ends well; returns how long that took."""
        began = time.monotonic()
        command, env = self._command, processes.as_a_user(self.scratch)
        ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
        assert ended.returncode == 0, ended.stderr
        return time.monotonic() - began

    def killed(self, role: str, after_s: float, drawn: random.Random) -> tuple[str, list[psutil.Process]]:
        """Run, and kill a process of this role after so long; returns what became of the run, and what it left.

        A run whose driver alone is killed leaves the others to themselves, as a machine does that is short of memory.
        """
        leader = processes.start(self._command, processes.as_a_user(self.scratch), self.scratch / "killed.log")
        left: list[psutil.Process] = []
        try:
            leader.wait(after_s)
            return "it had ended", left
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

    def current(self) -> Version:
        """The current release, once every byte of it is checked and it is loaded as a server would."""
        published = pointer.current(self.workspace.store)
        assert published is not None
        version = self.workspace.open("releases", published.release)
        assert release.load(version.store).name == published.release
        return version

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-m", "raycl", "nightly", str(self.config)]


def role_of(process: psutil.Process) -> str:
    """What a process of Ray does."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return "gone"
    name = Path(words[0]).name if words else ""
    return "worker" if name.startswith("ray::") else name


def night(folder: Path, scratch: Path) -> Night:
    """A run of the log under ``folder``, with its workspace there: few rows, few steps, many tasks."""
    tree: dict[str, Any] = builders.config_tree(folder, str(folder / "workspace"))
    tree["pairs"]["num_buckets"] = 4
    tree["train"] |= {"epochs": 2, "global_batch_size": 32, "checkpoint_steps": 5}
    tree["index"] = {"num_shards": 4, "items_per_block": 12}
    tree["evaluation"] = {"resamples": 100, "ks": [3, 10]}
    return Night(builders.write_config(folder / "raycl.yaml", tree), scratch)


def a_new_day(folder: Path) -> None:
    """Every user meets one item more."""
    users = np.arange(USERS)
    items = [f"item-{user % ITEMS}" for user in users]
    day = {"user_id": users, "item_id": items, "timestamp": 1_800_000_000 + users}
    known = pq.read_table(next((folder / "events").glob("*.parquet"))).schema
    columns: Mapping[str, Any] = {name: pa.array(values).cast(known.field(name).type) for name, values in day.items()}
    pq.write_table(pa.table(columns), folder / "events" / "the-new-day.parquet")


def copied(first: Night, folder: Path) -> Night:
    """The first night's log and workspace under ``folder``, and a new day."""
    shutil.copytree(first.config.parent, folder, dirs_exist_ok=True)
    a_new_day(folder)
    return night(folder, first.scratch)


@pytest.fixture(scope="module")
def first(scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A workspace after its first night."""
    folder = tmp_path_factory.mktemp("first")
    builders.write_log(folder, users=USERS, items=ITEMS)
    made = night(folder, scratch)
    made.to_the_end()
    return made


def same(one: Version, other: Version) -> bool:
    """Whether two releases hold the same, but for what names versions and tells times."""
    expected, found = contents(one), contents(other)
    return different(expected, found) in ([], [release.GATE_FILE])


def test_after_kills_at_random_what_is_current_is_whole_and_the_next_night_ends_as_a_clean_one(
    first: Night, tmp_path: Path
) -> None:
    clean = copied(first, tmp_path / "clean")
    clean_s = clean.to_the_end()
    drawn = random.Random(SEED)
    for number in range(NUM_KILLS):
        role, after_s = _ROLES[number % len(_ROLES)], drawn.uniform(0.0, clean_s)
        disturbed = copied(first, tmp_path / f"night-{number}")
        before = disturbed.current().name
        outcome, left = disturbed.killed(role, after_s, drawn)
        now = disturbed.current().name
        try:
            again_s = disturbed.to_the_end()
        finally:
            orphans = processes.end(left)
        after = disturbed.current()
        assert after.name != before
        assert now in (before, after.name)
        assert same(clean.current(), after)
        print(
            f"{number + 1}: {role} killed after {after_s:.1f} s of {clean_s:.1f}, {outcome}; the"
            f" {'new' if now == after.name else 'old'} release is whole; the next night took {again_s:.1f} s"
            f" beside {len(left)} processes left, {orphans} of which were there to the end"
        )
        shutil.rmtree(tmp_path / f"night-{number}")
