"""Which part each event belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raycl.config import ColdItems, ColdUsers, ColumnSplit, LeaveLastN, LeaveLastOut, PairRules
from raycl.data.hashing import hash_ids, mix
from raycl.data.rules import Events, Ints, user_sizes

Codes = npt.NDArray[np.int8]

CONTEXT, TRAIN, VAL, TEST = range(-1, 3)
"""Parts in time order; ``CONTEXT`` is a target of none, and stands behind the targets of its user."""

_SALT = {"cold_users": 0x75736572, "cold_items": 0x6974656D}
"""So that a user and an item of one id are not cold together."""


@dataclass(frozen=True)
class Cuts:
    """Moments from which events belong to validation and to test, for a split by time."""

    val_from_ms: int = 0
    test_from_ms: int = 0
    val_is_named: bool = False
    """Whether a split column names any event of the log validation."""


def named(events: Any, rules: PairRules, seed: int) -> Codes:
    """The part that each row of ``schema.events`` brings along, where it does: in its column, or by a cold item."""
    if isinstance(rules.split, ColdItems):
        return cold_parts(events["item"], rules.split, seed)
    if isinstance(rules.split, ColumnSplit):
        codes = np.asarray(events["split"].to_numpy())
        return np.where(codes == VAL, np.int8(TRAIN), codes) if rules.split.train_on_val else codes
    return np.zeros(events.num_rows, dtype=np.int8)


def follow_names(rules: PairRules) -> bool:
    """Whether the part of an event stands in the row, so that parts of one user may run against time."""
    return isinstance(rules.split, ColumnSplit | ColdItems)


def cold_parts(ids: Any, split: ColdUsers | ColdItems, seed: int) -> Codes:
    """The part of each user or item, by hash of its id: ``TRAIN`` for those that are not cold.

    The same for an id on every machine and in every log; another seed makes another draw.
    """
    key = mix(np.array([seed % 2**64], dtype=np.uint64)) ^ np.uint64(_SALT[split.kind])
    drawn = mix(hash_ids(ids) ^ key)
    share = (drawn >> np.uint64(11)) * 2.0**-53
    held_out = split.val_share + split.test_share
    return np.select([share < split.val_share, share < held_out], [VAL, TEST], TRAIN).astype(np.int8)


def assign(events: Events, users: Any, rules: PairRules, cuts: Cuts, seed: int) -> Codes:
    """The part of each event; ``users`` are the raw ids that ``events.user`` numbers."""
    if isinstance(rules.split, LeaveLastOut):
        return _last_n(events, 1, 1)
    if isinstance(rules.split, LeaveLastN):
        return _last_n(events, rules.split.num_val, rules.split.num_test)
    if isinstance(rules.split, ColdUsers):
        part = cold_parts(users, rules.split, seed)[events.user]
        return np.where(part == TRAIN, TRAIN, np.where(_num_after(events) == 0, part, CONTEXT)).astype(np.int8)
    if isinstance(rules.split, ColdItems):
        return events.split
    if isinstance(rules.split, ColumnSplit):
        held_out = rules.split.hold_out_val and not rules.split.train_on_val
        if not held_out or cuts.val_is_named or not len(events):
            return events.split
        return _hold_out_last(events) if rules.history == "before" else _hold_out_drawn(events, users)
    return ((events.time_ms >= cuts.val_from_ms).astype(np.int8) + (events.time_ms >= cuts.test_from_ms)).astype(
        np.int8
    )


def _num_after(events: Events) -> Ints:
    """Of each event, how many of its user come after it."""
    if not len(events):
        return np.zeros(0, dtype=np.int64)
    return np.asarray(np.cumsum(np.bincount(events.user))[events.user] - 1 - np.arange(len(events)))


def _last_n(events: Events, num_val: int, num_test: int) -> Codes:
    """The last events to test, those before them to validation; none of a user with nothing left to train on."""
    after = _num_after(events)
    held_out = (after < num_val + num_test) & (user_sizes(events) > num_val + num_test)
    return np.where(held_out, np.where(after < num_test, TEST, VAL), TRAIN).astype(np.int8)


def _hold_out_last(events: Events) -> Codes:
    """Give validation the last training event of each user with three or more."""
    training = np.flatnonzero(events.split == TRAIN)
    _, last, sizes = np.unique(events.user[training][::-1], return_index=True, return_counts=True)
    split = events.split.copy()
    split[training[::-1][last[sizes >= 3]]] = VAL
    return split


def _hold_out_drawn(events: Events, users: Any) -> Codes:
    """Give validation one training event of each user with three or more: that of least hash."""
    is_train = events.split == TRAIN
    num_train = np.bincount(events.user, weights=is_train).astype(np.int64)
    eligible = is_train & (num_train[events.user] >= 3)
    hashes = mix(hash_ids(users)[events.user] ^ mix(events.item.astype(np.uint64)))
    hashes[~eligible] = np.iinfo(np.uint64).max
    starts = np.flatnonzero(np.diff(events.user, prepend=-1))
    least = np.minimum.reduceat(hashes, starts)
    chosen = eligible & (hashes == np.repeat(least, np.diff(np.append(starts, len(events)))))
    first = np.flatnonzero(chosen)[np.unique(events.user[chosen], return_index=True)[1]]
    split = events.split.copy()
    split[first] = VAL
    return split


def quantiles(times_ms: Ints, size: int = 1024) -> list[int]:
    """A sketch of a fragment's times: ``size`` evenly spaced order statistics."""
    if not len(times_ms):
        return []
    places = np.linspace(0, len(times_ms) - 1, num=min(size, len(times_ms))).astype(np.int64)
    return [int(moment) for moment in np.partition(times_ms, places)[places]]


def cut_times(sketches: list[tuple[int, list[int]]], val_share: float, test_share: float) -> Cuts:
    """The moments that leave about these shares of all events after them, from (rows, quantiles) of each fragment."""
    if not any(sketch for _, sketch in sketches):
        return Cuts()
    moments = np.concatenate([np.array(sketch, dtype=np.int64) for _, sketch in sketches if sketch])
    weights = np.concatenate([np.full(len(sketch), rows / len(sketch)) for rows, sketch in sketches if sketch])
    order = np.argsort(moments, kind="stable")
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached, reached[-1] * np.array([1 - val_share - test_share, 1 - test_share]))
    val_from, test_from = moments[order][places]
    return Cuts(int(val_from), int(test_from))
