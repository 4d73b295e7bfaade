"""``raycl nightly`` of a small log in processes of its own, and what it leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raycl.config_file import load
from raycl.index import release
from raycl.storage import pointer
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace
from tests.cluster import builders, processes
from tests.cluster.outputs import contents, different

USERS, ITEMS = 60, 48
_WITHIN_S = 300
_RAY_DID_NOT_START = "The current node timed out during startup"
"""It gives itself 30 s, which a busy machine may need."""


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
        """Run until it ends well, once more where Ray did not start; returns how long that took."""
        began, env = time.monotonic(), processes.as_a_user(self.scratch)
        for again in (True, False):
            ended = subprocess.run(
                self.command, env=env, capture_output=True, text=True, timeout=_WITHIN_S, check=False
            )
            if not (again and _RAY_DID_NOT_START in ended.stderr):
                break
        assert ended.returncode == 0, ended.stderr
        return time.monotonic() - began

    def current(self) -> Version:
        """The current release, once every byte of it is checked and it is loaded as a server would."""
        published = pointer.current(self.workspace.store)
        assert published is not None
        version = self.workspace.open("releases", published.release)
        assert release.load(version.store).name == published.release
        return version

    @property
    def command(self) -> list[str]:
        """What a user types."""
        return [sys.executable, "-m", "raycl", "nightly", str(self.config)]


def night(folder: Path, scratch: Path, root: str | None = None) -> Night:
    """A run of the log under ``root``, with its workspace there: few rows, few steps, many tasks.

    Its config is under ``folder``, and by default all else too.
    """
    tree: dict[str, Any] = builders.config_tree(folder, f"{root or folder}/workspace")
    if root is not None:
        tree["logs"], tree["items"]["uri"] = [{"uri": f"{root}/events"}], f"{root}/items.parquet"
    tree["pairs"]["num_buckets"] = 4
    tree["train"] |= {"epochs": 2, "global_batch_size": 32, "checkpoint_steps": 5}
    tree["index"] = {"num_shards": 4, "items_per_block": 12}
    tree["evaluation"] = {"resamples": 100, "ks": [3, 10]}
    folder.mkdir(parents=True, exist_ok=True)
    return Night(builders.write_config(folder / "raycl.yaml", tree), scratch)


def write_log(folder: Path) -> None:
    """Write the log of the first day."""
    builders.write_log(folder, users=USERS, items=ITEMS)


def a_new_day(folder: Path) -> None:
    """Every user meets one item more."""
    users = np.arange(USERS)
    items = [f"item-{user % ITEMS}" for user in users]
    day = {"user_id": users, "item_id": items, "timestamp": 1_800_000_000 + users}
    known = pq.read_table(next((folder / "events").glob("*.parquet"))).schema
    columns: Mapping[str, Any] = {name: pa.array(values).cast(known.field(name).type) for name, values in day.items()}
    pq.write_table(pa.table(columns), folder / "events" / "the-new-day.parquet")


def no_items() -> pa.Table:
    """A table of items without any, to hand in beside those that are removed."""
    return pa.table({"item_id": pa.array([], pa.large_string())})


def copied(first: Night, folder: Path) -> Night:
    """The first night's log and workspace under ``folder``, and a new day."""
    shutil.copytree(first.config.parent, folder, dirs_exist_ok=True)
    a_new_day(folder)
    return night(folder, first.scratch)


def same(one: Version, other: Version) -> bool:
    """Whether two releases hold the same, but for what names versions and tells times."""
    expected, found = contents(one), contents(other)
    return different(expected, found) in ([], [release.GATE_FILE])
