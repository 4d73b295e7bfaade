"""The k-core of users and items, in rounds over the buckets of users: what is left once everything rare is out.

A round drops the items under ``min_item_events``, then the users under ``min_user_events``. Since no count ever rises,
the users that are out follow from the items that are, so flags of the items are all that a round hands to the next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.data import vocabulary
from raycl.data.rules import Events, Flags, Ints
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft, Record

Rows = npt.NDArray[np.int32]
MapTasks = Callable[[str, Callable[[int], Record], int], Sequence[Record]]
"""``ray_runtime.map_tasks``, or a loop in a test."""

_FOLDER = f"{WORK}/core"


@dataclass(frozen=True)
class Core:
    """How the rounds ended."""

    rounds: int = 0
    """Rounds done, up to the last that was needed."""
    is_fixed: bool = True
    """Whether another round would drop nothing."""
    num_dropped: int = 0
    """Items that are out."""


def count_items(user: Ints, item: Rows, in_core: Flags, min_user_events: int) -> tuple[Rows, Ints]:
    """Items and their events, once the items that are not ``in_core`` (num_items,) are out, then the rare users."""
    kept = in_core[item]
    sizes = np.bincount(user[kept], minlength=int(user.max(initial=-1)) + 1)
    kept &= sizes[user] >= min_user_events
    found, counts = np.unique(item[kept], return_counts=True)
    return found, counts.astype(np.int64)


@dataclass(frozen=True)
class Rounds:
    """What every task of the rounds needs to know."""

    draft: Draft
    num_buckets: int
    num_items: int
    min_item_events: int
    min_user_events: int
    most: int
    """Rounds at most."""

    def run(self, cleaned: Callable[[int], Events], map_tasks: MapTasks) -> Core:
        """Drop rare items and users until nothing changes; ``cleaned`` gives the sorted events of a bucket.

        Each round counts what the one before it left, so the last count, which drops nothing, is not a round. A killed
        run goes on from its finished counts.
        """
        num_dropped = 0
        for number in range(1, self.most + 2):
            record = self.draft.task_done(f"core-{number:04d}")
            if record is None:
                map_tasks("core", functools.partial(self._count, number, cleaned), self.num_buckets)
                record = self._fold(number)
                self.draft.finish_task(f"core-{number:04d}", record)
            # The first count is of all users: those who are rare leave with the first round, whether items do or not.
            if number > 1 and not record["under"]:
                return Core(number - 1, True, num_dropped)
            if number > self.most:
                return Core(self.most, False, num_dropped)
            num_dropped += record["under"]
        raise AssertionError("the loop above returns")

    def _count(self, number: int, cleaned: Callable[[int], Events], bucket: int) -> dict[str, Any]:
        """Count the items of a bucket's users; the first round leaves their events for the others to count again."""
        task = f"core-{number:04d}-{bucket:06d}"
        if (record := self.draft.task_done(task)) is not None:
            return record
        store, path = self.draft.store, f"{_FOLDER}/events-{bucket:06d}.parquet"
        if number == 1:
            events = cleaned(bucket)
            tables.write(store, path, pa.table({"user": events.user.astype(np.int32), "item": events.item}))
            found, counts = count_items(events.user, events.item, np.ones(self.num_items, dtype=np.bool_), 1)
        else:
            table = tables.read(store, path)
            in_core = read(store, number - 1)
            found, counts = count_items(
                table["user"].to_numpy(), table["item"].to_numpy(), in_core, self.min_user_events
            )
        tables.write(store, self._counts(number, bucket), pa.table({"item": found, "count": counts}))
        record = {"events": int(counts.sum())}
        self.draft.finish_task(task, record)
        return record

    def _fold(self, number: int) -> dict[str, Any]:
        """Add the counts of all buckets, one at a time, and write which items are still in."""
        store = self.draft.store
        parts = (tables.read(store, self._counts(number, bucket)) for bucket in range(self.num_buckets))
        total = vocabulary.sum_by_row(parts, ["count"], self.num_items)["count"]
        under = (total > 0) & (total < self.min_item_events)
        if number <= self.most:
            in_core = ~under & (read(store, number - 1) if number > 1 else True)
            tables.write(store, _flags(number), pa.table({"in_core": in_core}))
        return {"under": int(under.sum())}

    def _counts(self, number: int, bucket: int) -> str:
        return f"{_FOLDER}/counts-{number:04d}-{bucket:06d}.parquet"


def read(store: Store, rounds: int) -> Flags:
    """Of each item, whether it is still in after so many rounds."""
    return np.asarray(tables.read(store, _flags(rounds))["in_core"].to_numpy())


def _flags(rounds: int) -> str:
    return f"{_FOLDER}/items-{rounds:04d}.parquet"
