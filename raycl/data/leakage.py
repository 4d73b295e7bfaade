"""What training must not know, looked for in the sequences that are about to be written, whatever made them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.config import ColdItems, ColdUsers, PairRules, TimeSplit
from raycl.data.columns import whole
from raycl.data.hashing import hash_ids
from raycl.data.reader import Sequences
from raycl.data.splits import TEST, TRAIN, VAL, Cuts, cold_parts
from raycl.errors import RayclError

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
ItemIds = Callable[[Ints], Any]
"""Raw ids of rows of the vocabulary."""

_NEVER = np.iinfo(np.int64).max
_ODD = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)


@dataclass(frozen=True)
class Leak:
    """A check that found something."""

    check: str
    num_cases: int
    user: Any
    """One that has a case."""


@dataclass(frozen=True)
class _Part:
    """The sequences of one part; what is known of every place is worked out where a check needs it."""

    name: str
    table: pa.Table
    event: npt.NDArray[np.uint8]
    """(places,)"""

    @cached_property
    def users(self) -> Any:
        """Raw ids, one a sequence."""
        return whole(self.table["user"])

    @cached_property
    def offsets(self) -> Ints:
        offsets = whole(self.table["items"]).offsets.to_numpy().astype(np.int64)
        return offsets - offsets[0] if len(offsets) else np.zeros(1, dtype=np.int64)

    @cached_property
    def items(self) -> npt.NDArray[np.int32]:
        return np.asarray(whole(self.table["items"]).flatten().to_numpy(zero_copy_only=False))

    @cached_property
    def times_ms(self) -> Ints:
        return np.asarray(whole(self.table["times_ms"]).flatten().to_numpy(zero_copy_only=False))

    @cached_property
    def first_target(self) -> Ints:
        """Of each user, the place of the first target."""
        return np.asarray(self.offsets[:-1] + self.table["first_target"].to_numpy())

    @cached_property
    def owner(self) -> Ints:
        """(places,) rows of ``users``."""
        sizes = np.diff(self.offsets)
        return np.repeat(np.arange(len(sizes)), sizes)

    @cached_property
    def is_target(self) -> Flags:
        """(places,)."""
        return np.asarray(np.arange(len(self.items)) >= self.first_target[self.owner])

    @property
    def targets(self) -> Ints:
        """Places of the targets."""
        return np.flatnonzero(self.is_target)

    def users_at(self, places: Ints) -> Ints:
        """Rows of ``users`` at these places, where they are few."""
        return np.asarray(np.searchsorted(self.offsets, places, side="right") - 1)

    @cached_property
    def falls(self) -> bool:
        """Whether some event of a user is older than the one before it."""
        return bool(self._within_users(self.times_ms[1:] < self.times_ms[:-1]).any())

    @cached_property
    def target_times(self) -> tuple[Ints, Ints]:
        """Of each user, the times of the earliest target and of the latest; of one without, what meets none."""
        first, last = np.full(len(self.users), _NEVER), np.full(len(self.users), -_NEVER)
        some = np.flatnonzero(self.first_target < self.offsets[1:])
        if not self.falls:
            first[some], last[some] = self.times_ms[self.first_target[some]], self.times_ms[self.offsets[1:][some] - 1]
        elif len(some):
            times = self.times_ms[self.is_target]
            sizes = (self.offsets[1:] - self.first_target)[some]
            opens = np.cumsum(sizes) - sizes
            first[some], last[some] = np.minimum.reduceat(times, opens), np.maximum.reduceat(times, opens)
        return first, last

    def at_one_moment(self) -> Ints:
        """Places with an event of the same user and time beside them; in time order, all that share their moment."""
        later = np.flatnonzero(self._within_users(self.times_ms[1:] == self.times_ms[:-1])) + 1
        return np.union1d(later, later - 1)

    def leak(self, check: str, cases: Flags) -> list[Leak]:
        """The leak of the places with a case; none where no place has one."""
        num_cases = int(cases.sum())
        return [Leak(check, num_cases, self.users[int(self.owner[cases.argmax()])].as_py())] if num_cases else []

    def _within_users(self, steps: Flags) -> Flags:
        """``steps`` from each place to the next, none from one user to another."""
        inner = self.offsets[1:-1]
        steps[inner[(inner > 0) & (inner < len(self.times_ms))] - 1] = False
        return steps


def find(
    tables: Mapping[str, pa.Table],
    event_types: Mapping[str, npt.NDArray[np.uint8]],
    rules: PairRules,
    cuts: Cuts,
    seed: int,
    item_ids: ItemIds,
) -> list[Leak]:
    """Look through the sequences of some users (``schema.sequences`` by part) with the type of each event.

    - ``outside_its_cuts``: with a split by time, a target outside the moments of its part, which are the same for all.
    - ``train_after_val`` and the like: with ``history: before``, a target later than the user's first of a later part.
    - ``target_in_its_history``: an event at or after the target's time that the reader would put into its history, or,
      where histories do not follow time, the same user, item, time and event type.
    - ``target_of_two_parts``, or twice of one: the same user, item, time and event type.
    - ``cold_user_in_train``, ``cold_item_in_train``: who is to be cold is in training; for items, also in a history.
    """
    parts = [_Part(name, tables[name], event_types[name]) for name in schema.SPLITS]
    found: list[Leak] = []
    if isinstance(rules.split, TimeSplit):
        for part, bounds in zip(parts, _bounds(cuts), strict=True):
            found += _outside(part, *bounds)
    if rules.history == "before":
        shared = [_Shared.of(part, later) for code, part in enumerate(parts) for later in parts[code + 1 :]]
        for both in shared:
            found += _after(both)
        for part in parts:
            found += _ahead_of_target(part)
        in_time = not any(part.falls for part in parts)
        found += _same_targets(parts, [_near(part, shared) if in_time else part.targets for part in parts])
    else:
        for part in parts:
            found += _among_context(part)
        found += _same_targets(parts, [part.targets for part in parts])
    if isinstance(rules.split, ColdUsers):
        found += _cold_users(parts[TRAIN], rules.split, seed)
    if isinstance(rules.split, ColdItems):
        for part in parts:
            found += _cold_items(part, rules.split, seed, item_ids)
    return found


def require_none(leaks: list[Leak], bucket: int) -> None:
    """RayclError that names the first leak."""
    if leaks:
        leak = leaks[0]
        raise RayclError(
            f"leakage check {leak.check} failed in bucket {bucket}: {leak.num_cases} cases, one of them of user"
            f" {leak.user!r}; all that failed: {', '.join(sorted({leak.check for leak in leaks}))}. Nothing of this run"
            f" can be trained on: report it with the config, and run with --force once it is mended"
        )


def _bounds(cuts: Cuts) -> list[tuple[int, int]]:
    """First moment of each part, and the first after it."""
    return [(-_NEVER, cuts.val_from_ms), (cuts.val_from_ms, cuts.test_from_ms), (cuts.test_from_ms, _NEVER)]


def _outside(part: _Part, start: int, stop: int) -> list[Leak]:
    first, last = part.target_times
    if not ((first < start) | (last >= stop)).any():
        return []
    return part.leak("outside_its_cuts", part.is_target & ((part.times_ms < start) | (part.times_ms >= stop)))


@dataclass(frozen=True)
class _Shared:
    """Users who have targets in two parts."""

    part: _Part
    later: _Part
    rows: Ints
    """(users,) rows of ``part``"""
    later_rows: Ints
    """(users,) rows of ``later``"""
    last: Ints
    """(users,) time of the last target of ``part``"""
    first: Ints
    """(users,) time of the first target of ``later``"""

    @classmethod
    def of(cls, part: _Part, later: _Part) -> _Shared:
        found = pc.index_in(later.users, value_set=part.users).fill_null(-1).to_numpy(zero_copy_only=False)
        later_rows = np.flatnonzero(found >= 0)
        rows = found[later_rows].astype(np.int64)
        return cls(part, later, rows, later_rows, part.target_times[1][rows], later.target_times[0][later_rows])


def _after(both: _Shared) -> list[Leak]:
    """Targets of a part that come after the user's first target of a later part."""
    if not (both.last > both.first).any():
        return []
    limits = np.full(len(both.part.users), _NEVER)
    limits[both.rows] = both.first
    late = both.part.times_ms > limits[both.part.owner]
    return both.part.leak(f"{both.part.name}_after_{both.later.name}", both.part.is_target & late)


def _ahead_of_target(part: _Part) -> list[Leak]:
    """Targets with an event at their own time or later in what the reader takes for their past."""
    if not part.falls:
        return []  # the past ends where the target's moment begins
    moment = Sequences.from_table(part.table).moment
    moments, ranks = np.unique(part.times_ms, return_inverse=True)
    highest = np.maximum.accumulate(part.owner * len(moments) + ranks)  # of the user's events so far
    has_past = moment > part.offsets[:-1][part.owner]
    ahead = part.is_target & has_past & (highest[moment - 1] >= part.owner * len(moments) + ranks)
    return part.leak("target_in_its_history", ahead)


def _among_context(part: _Part) -> list[Leak]:
    """Targets that equal another event of their sequence, where a sequence has events that are no targets."""
    if not (part.first_target > part.offsets[:-1]).any():
        return []
    again = _same_as_another(part.owner, part.items, part.times_ms, part.event)
    return part.leak("target_in_its_history", part.is_target & again)


def _near(part: _Part, shared: list[_Shared]) -> Ints:
    """Targets that have an event of their user and moment beside them, or that meet the targets of another part.

    Where the events of a sequence are in time order, no others can be targets twice.
    """
    tied = part.at_one_moment()
    found = [tied[tied >= part.first_target[part.users_at(tied)]]]
    for both in shared:
        meet = both.last >= both.first
        for one, rows in ((both.part, both.rows[meet]), (both.later, both.later_rows[meet])):
            if one is part:
                places, run = _ranges(part.first_target[rows], part.offsets[1:][rows])
                times = part.times_ms[places]
                found.append(places[(both.first[meet][run] <= times) & (times <= both.last[meet][run])])
    return np.unique(np.concatenate(found))


def _ranges(starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
    """The places of runs end to end, and which run each is of."""
    sizes = stops - starts
    run = np.repeat(np.arange(len(sizes)), sizes)
    return np.arange(len(run)) + (starts - np.cumsum(sizes) + sizes)[run], run


def _same_targets(parts: list[_Part], places: list[Ints]) -> list[Leak]:
    """Targets, of those at these places, that are a target of another part, or of the same one, too."""
    chosen = list(zip(parts, places, strict=True))
    again = _same_as_another(
        np.concatenate([hash_ids(part.users).view(np.int64)[part.users_at(rows)] for part, rows in chosen]),
        np.concatenate([part.items[rows] for part, rows in chosen]),
        np.concatenate([part.times_ms[rows] for part, rows in chosen]),
        np.concatenate([part.event[rows] for part, rows in chosen]),
    )
    found: list[Leak] = []
    ends = np.cumsum([len(rows) for rows in places])[:-1]
    for (part, rows), mine in zip(chosen, np.split(again, ends), strict=True):
        cases = np.zeros(len(part.items), dtype=np.bool_)
        cases[rows[mine]] = True
        found += part.leak("target_of_two_parts", cases)
    return found


def _same_as_another(user: Ints, item: npt.NDArray[np.int32], time_ms: Ints, event: npt.NDArray[np.uint8]) -> Flags:
    """Whether another of these events has the same user, item, time and type.

    Candidates share a sum of odd multiples, which one sort of integers brings together; they are then compared whole.
    """
    kind = (item.astype(np.uint64) << np.uint64(8)) | event
    sums = user.astype(np.uint64) * _ODD[0] + time_ms.astype(np.uint64) * _ODD[1] + kind * _ODD[2]
    ordered = np.sort(sums)
    again = np.zeros(len(sums), dtype=np.bool_)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return again
    places = np.flatnonzero(np.isin(sums, twice))
    columns = [column[places] for column in (user, time_ms, item, event)]
    order = np.lexsort(columns)
    same = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    again[places[order[1:][same]]] = True
    again[places[order[:-1][same]]] = True
    return again


def _cold_users(train: _Part, split: ColdUsers, seed: int) -> list[Leak]:
    is_cold = cold_parts(train.users, split, seed) != TRAIN
    return train.leak("cold_user_in_train", is_cold[train.owner]) if is_cold.any() else []


def _cold_items(part: _Part, split: ColdItems, seed: int, item_ids: ItemIds) -> list[Leak]:
    """Cold items in training, or behind a target of another part; and targets there that are not cold for it."""
    codes = np.zeros(int(part.items.max(initial=-1)) + 1, dtype=np.int8)
    codes[part.items] = 1
    rows = np.flatnonzero(codes)
    codes[rows] = cold_parts(item_ids(rows), split, seed)
    wanted = {"train": TRAIN, "val": VAL, "test": TEST}[part.name]
    check = "cold_item_in_train" if part.name == "train" else f"item_of_another_part_in_{part.name}"
    return part.leak(check, codes[part.items] != (np.where(part.is_target, wanted, TRAIN) if wanted else TRAIN))
