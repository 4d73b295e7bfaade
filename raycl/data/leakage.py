"""What training must not know, looked for in the sequences that are about to be written, whatever made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from raycl import schema
from raycl.config import ColdItems, ColdUsers, PairRules, TimeSplit
from raycl.data.packed import Flags, Ints, Negatives, Rows, Sequences
from raycl.data.rules import Events
from raycl.data.splits import CONTEXT, TEST, TRAIN, VAL, Codes, Cuts, cold_parts
from raycl.errors import RayclError

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
class Written:
    """Sequences of some users; what is known of every place is worked out where a check needs it."""

    packed: Sequences
    users: Any
    """Raw ids, one a sequence."""
    event: npt.NDArray[np.uint8]
    """(places,) types of the events"""
    negatives: Events | None = None
    """The explicit negatives of the sequences, end to end, with the part that each is of."""

    @cached_property
    def owner(self) -> Ints:
        """(places,) rows of ``users``."""
        sizes = np.diff(self.packed.offsets)
        return np.repeat(np.arange(len(sizes)), sizes)

    @cached_property
    def part(self) -> npt.NDArray[np.int8]:
        """(places,) the part whose target each event is; ``CONTEXT`` for those that are none."""
        edges = np.vstack([self.packed.offsets[:-1], self.packed.bounds])
        codes = np.arange(CONTEXT, TEST + 1, dtype=np.int8)
        return np.repeat(np.tile(codes, len(self.users)), np.diff(edges, axis=0).T.ravel())

    @cached_property
    def falls(self) -> bool:
        """Whether some event of a user is older than the one before it."""
        times = self.packed.times_ms
        return bool(self._within_users(times[1:] < times[:-1]).any())

    def at_one_moment(self) -> Ints:
        """Places with an event of the same user and time beside them; in time order, all that share their moment."""
        times = self.packed.times_ms
        later = np.flatnonzero(self._within_users(times[1:] == times[:-1])) + 1
        return np.union1d(later, later - 1)

    def leak(self, check: str, cases: Flags) -> list[Leak]:
        """The leak of the places with a case; none where no place has one."""
        return self.leak_of(check, cases, self.owner) if cases.any() else []

    def leak_of(self, check: str, cases: Flags, owner: Ints) -> list[Leak]:
        """The leak of what has a case, each of its ``owner``, a row of ``users``; none where nothing has one."""
        num_cases = int(np.count_nonzero(cases))
        return [Leak(check, num_cases, self.users[int(owner[cases.argmax()])].as_py())] if num_cases else []

    def _within_users(self, steps: Flags) -> Flags:
        """``steps`` from each place to the next, none from one user to another."""
        inner = self.packed.offsets[1:-1]
        steps[inner[(inner > 0) & (inner <= len(steps))] - 1] = False
        return steps


def find(found: Written, rules: PairRules, cuts: Cuts, seed: int, item_ids: ItemIds) -> list[Leak]:
    """Look through the sequences of some users with the type of each event.

    - ``outside_its_cuts``: with a split by time, a target outside the moments of its part, which are the same for all.
    - ``train_after_val`` and the like: with ``history: before``, a target later than the user's first of a later part.
    - ``target_in_its_history``: an event at or after the target's time that the reader would put into its history, or,
      where histories do not follow time, the same user, item, time and event type in an earlier part.
    - ``target_of_two_parts``, or twice of one: the same user, item, time and event type.
    - ``cold_user_in_train``, ``cold_item_in_train``: who is to be cold is in training; for items, also in a history.
    - ``negative_out_of_time``: an explicit negative older than the user's one before it, by which the reader would find
      what is after a target before it.
    - ``negative_of_later_part``, ``cold_item_in_negatives``: one that is not for training, by its row or by its item.
    """
    leaks: list[Leak] = []
    if isinstance(rules.split, TimeSplit):
        leaks += _outside(found, cuts)
    if rules.history == "others":
        leaks += _among_context(found)
    elif found.falls:  # else the past of a target ends where its moment begins, and no part overtakes another
        leaks += [*_after(found), *_ahead_of_target(found)]
    leaks += _same_targets(found, in_time=rules.history == "before" and not found.falls)
    if isinstance(rules.split, ColdUsers):
        leaks += _cold_users(found, rules.split, seed)
    if isinstance(rules.split, ColdItems):
        leaks += _cold_items(found, rules.split, seed, item_ids)
    if found.packed.negatives is not None:
        leaks += _among_negatives(found, found.packed.negatives, rules, seed, item_ids)
    return leaks


def require_none(leaks: list[Leak], bucket: int) -> None:
    """RayclError that names the first leak."""
    if leaks:
        leak = leaks[0]
        raise RayclError(
            f"leakage check {leak.check} failed in bucket {bucket}: {leak.num_cases} cases, one of them of user"
            f" {leak.user!r}; all that failed: {', '.join(sorted({leak.check for leak in leaks}))}. Nothing of this run"
            f" can be trained on: report it with the config, and run with --force once it is mended"
        )


def _outside(found: Written, cuts: Cuts) -> list[Leak]:
    times = found.packed.times_ms
    wanted = (times >= cuts.val_from_ms).astype(np.int8) + (times >= cuts.test_from_ms)
    return found.leak("outside_its_cuts", (found.part != wanted) & (found.part != CONTEXT))


def _after(found: Written) -> list[Leak]:
    """Targets of a part that come after the user's first target of a later part."""
    leaks: list[Leak] = []
    for code, name in enumerate(schema.SPLITS):
        for later in range(code + 1, len(schema.SPLITS)):
            first = np.full(len(found.users), _NEVER)
            theirs = np.flatnonzero(found.part == later)
            np.minimum.at(first, found.owner[theirs], found.packed.times_ms[theirs])
            late = found.packed.times_ms > first[found.owner]
            leaks += found.leak(f"{name}_after_{schema.SPLITS[later]}", (found.part == code) & late)
    return leaks


def _ahead_of_target(found: Written) -> list[Leak]:
    """Targets with an event at their own time or later in what the reader takes for their past."""
    moments, ranks = np.unique(found.packed.times_ms, return_inverse=True)
    order = found.owner * len(moments) + ranks
    highest = np.maximum.accumulate(order)  # of the user's events so far
    moment = found.packed.moment
    has_past = moment > found.packed.offsets[:-1][found.owner]
    ahead = (found.part != CONTEXT) & has_past & (highest[moment - 1] >= order)
    return found.leak("target_in_its_history", ahead)


def _among_context(found: Written) -> list[Leak]:
    """Targets that equal an event of an earlier part of their sequence."""
    again, groups = _equal_events(found, np.arange(len(found.part)))
    cases = np.zeros(len(found.part), dtype=np.bool_)
    if len(again):
        first = np.full(int(groups.max()) + 1, TEST, dtype=np.int8)
        np.minimum.at(first, groups, found.part[again])
        cases[again] = found.part[again] > first[groups]
    return found.leak("target_in_its_history", cases)


def _same_targets(found: Written, *, in_time: bool) -> list[Leak]:
    """Targets that are a target of another part, or of the same one, too.

    Where the events of a sequence are ``in_time`` order, only events of one moment can be.
    """
    places = found.at_one_moment() if in_time else np.arange(len(found.part))
    again, _ = _equal_events(found, places[found.part[places] != CONTEXT] if len(places) else places)
    cases = np.zeros(len(found.event), dtype=np.bool_)
    cases[again] = True
    return found.leak("target_of_two_parts", cases)


def _equal_events(found: Written, places: Ints) -> tuple[Ints, Ints]:
    """Those of the places whose user, item, time and type another of them has too; and a number for each such set.

    Candidates share a sum of odd multiples, which one sort of integers brings together; they are then compared whole.
    """
    user = found.packed.users_at(places)
    item, time_ms, event = found.packed.items[places], found.packed.times_ms[places], found.event[places]
    kind = (item.astype(np.uint64) << np.uint64(8)) | event
    sums = user.astype(np.uint64) * _ODD[0] + time_ms.astype(np.uint64) * _ODD[1] + kind * _ODD[2]
    ordered = np.sort(sums)
    some = np.flatnonzero(np.isin(sums, ordered[1:][ordered[1:] == ordered[:-1]]))
    columns = [column[some] for column in (user, time_ms, item, event)]
    order = np.lexsort(columns)
    same = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    group = np.cumsum(np.append(True, ~same))[: len(order)] - 1
    shared = np.bincount(group, minlength=1)[group] > 1
    return places[some[order[shared]]], group[shared]


def _cold_users(found: Written, split: ColdUsers, seed: int) -> list[Leak]:
    is_cold = cold_parts(found.users, split, seed) != TRAIN
    some = is_cold & (found.packed.bounds[TRAIN] < found.packed.bounds[VAL])
    return found.leak("cold_user_in_train", some[found.owner] & (found.part == TRAIN)) if some.any() else []


def _cold_items(found: Written, split: ColdItems, seed: int, item_ids: ItemIds) -> list[Leak]:
    """Items of a part that are not for it; training is behind every target, so a cold item there is in histories."""
    wanted, cold = np.maximum(found.part, TRAIN), _parts_of(found.packed.items, split, seed, item_ids)
    leaks = found.leak("cold_item_in_train", (wanted == TRAIN) & (cold != TRAIN))
    for code in (VAL, TEST):
        name = schema.SPLITS[code]
        leaks += found.leak(f"item_of_another_part_in_{name}", (wanted == code) & (cold != code))
    return leaks


def _parts_of(items: Rows, split: ColdItems, seed: int, item_ids: ItemIds) -> Codes:
    """Of each item, the part that it is for."""
    codes = np.zeros(int(items.max(initial=-1)) + 1, dtype=np.int8)
    codes[items] = 1
    rows = np.flatnonzero(codes)
    codes[rows] = cold_parts(item_ids(rows), split, seed)
    return np.asarray(codes[items])


def _among_negatives(
    found: Written, negatives: Negatives, rules: PairRules, seed: int, item_ids: ItemIds
) -> list[Leak]:
    owner, times_ms = negatives.owner, negatives.times_ms
    falls = np.append(False, (times_ms[1:] < times_ms[:-1]) & (owner[1:] == owner[:-1]))[: len(owner)]
    leaks = found.leak_of("negative_out_of_time", falls, owner)
    if found.negatives is not None:
        leaks += found.leak_of("negative_of_later_part", found.negatives.split != TRAIN, owner)
    if isinstance(rules.split, ColdItems):
        cold = _parts_of(negatives.items, rules.split, seed, item_ids) != TRAIN
        leaks += found.leak_of("cold_item_in_negatives", cold, owner)
    return leaks
