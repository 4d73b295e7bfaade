"""The pair kernel: the events of whole users to packed, split sequences, by sorting and index arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.config import ColumnSplit, LeaveLastOut, PairRules
from raycl.data import reader
from raycl.data.columns import whole
from raycl.data.hashing import hash_ids, mix
from raycl.data.vocabulary import IdMap

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

TRAIN, VAL, TEST = range(3)


@dataclass(frozen=True)
class Cuts:
    """Moments from which events belong to validation and to test, for a split by time."""

    val_from_ms: int = 0
    test_from_ms: int = 0
    val_is_named: bool = False
    """Whether a split column names any event of the log validation."""


@dataclass(frozen=True)
class Built:
    """The sequences of each part, and what did not get in."""

    parts: dict[str, pa.Table]
    dropped: dict[str, int]
    num_events: int
    num_pairs: dict[str, int]
    train_counts: Ints
    """Events of each item in training, of shape (num_items,): what users did."""
    train_targets: Ints
    """Training pairs whose target is the item, of shape (num_items,): what a batch draws."""


@dataclass
class _Events:
    """Events sorted by user, then time; ties in time by item, event type and the rest, so input order never matters."""

    user: Ints
    item: npt.NDArray[np.int32]
    time_ms: Ints
    weight: npt.NDArray[np.float32]
    event: npt.NDArray[np.uint8]
    split: npt.NDArray[np.int8]

    def keep(self, kept: Flags) -> _Events:
        return _Events(*(column[kept] for column in vars(self).values()))

    def __len__(self) -> int:
        return len(self.user)


def build(
    events: pa.Table, items: IdMap, users: IdMap | None, rules: PairRules, cuts: Cuts, item_counts: Ints | None = None
) -> Built:
    """Turn all events of some users (``schema.events``) into the sequences of each part (``schema.sequences``).

    Rows leave in this order, counted by reason: ``rare_item`` (not in ``items``, or under ``rules.min_item_events`` in
    ``item_counts``), ``duplicate`` (same user, item, time and event type), ``robot_user``, ``after_held_out`` (later
    than the user's first event of a later part, which would see it as history), ``rare_user``. ``num_events`` is what
    remains. The result does not depend on the order of the rows.
    """
    users_here, user_codes = _distinct(events["user"])
    item_rows = items.rows(events["item"])
    sorted_events = _sort(user_codes, item_rows, events)
    dropped: dict[str, int] = {}

    known = sorted_events.item >= 0
    if item_counts is not None:
        known[known] = item_counts[sorted_events.item[known]] >= rules.min_item_events
    kept = _drop(sorted_events, known, "rare_item", dropped)
    kept = _drop(kept, ~_repeats(kept), "duplicate", dropped)
    kept = _drop(kept, _user_sizes(kept) <= rules.max_user_events, "robot_user", dropped)
    if rules.history == "before" and isinstance(rules.split, ColumnSplit):
        kept = _drop(kept, ~_after_held_out(kept), "after_held_out", dropped)
    kept = _drop(kept, _user_sizes(kept) >= rules.min_user_events, "rare_user", dropped)

    val_is_named = cuts.val_is_named or bool((sorted_events.split == VAL).any())
    kept.split = _assign_split(kept, users_here, rules, replace(cuts, val_is_named=val_is_named))
    order = np.lexsort((np.arange(len(kept)), kept.split, kept.user)) if _out_of_order(kept) else None
    if order is not None:
        kept = _Events(*(column[order] for column in vars(kept).values()))
    user_rows = users.rows(users_here) if users is not None else np.full(len(users_here), -1, dtype=np.int32)
    parts = {part: _pack(kept, code, users_here, user_rows) for code, part in enumerate(schema.SPLITS)}
    targets = {part: _target_items(table, rules, held_out=part != "train") for part, table in parts.items()}
    return Built(
        parts,
        dropped,
        len(kept),
        {part: len(drawn) for part, drawn in targets.items()},
        _count(kept.item[kept.split == TRAIN], len(items)),
        _count(targets["train"], len(items)),
    )


def _target_items(table: pa.Table, rules: PairRules, *, held_out: bool) -> npt.NDArray[np.int32]:
    """The item of each pair that the reader will make of this part."""
    packed = reader.Sequences.from_table(table)
    return packed.items[packed.targets(rules, held_out=held_out)]


def _count(item: npt.NDArray[np.int32], num_items: int) -> Ints:
    return np.bincount(item, minlength=num_items).astype(np.int64)


def _sort(user: Ints, item: npt.NDArray[np.int32], events: pa.Table) -> _Events:
    time_ms = _numpy(events["time_ms"])
    columns = _Events(user, item, time_ms, _numpy(events["weight"]), _numpy(events["event"]), _numpy(events["split"]))
    order = _order_by_user_and_time(user, time_ms)
    ordered = _Events(*(column[order] for column in vars(columns).values()))
    return _order_ties(ordered)


def _order_by_user_and_time(user: Ints, time_ms: Ints) -> Ints:
    """One sort of 64-bit integers that pack (user, time, row); a three-column sort only where they do not fit."""
    num_rows = len(user)
    if num_rows == 0:
        return np.zeros(0, dtype=np.int64)
    since = time_ms - time_ms.min()
    if not np.any(since % 1000):
        since = since // 1000
    row_bits = max(int(num_rows - 1).bit_length(), 1)
    time_bits = int(since.max()).bit_length()
    user_bits = int(user.max()).bit_length()
    if row_bits + time_bits + user_bits > 63:
        return np.asarray(np.lexsort((time_ms, user)))
    keys = (user << (time_bits + row_bits)) | (since << row_bits) | np.arange(num_rows)
    keys.sort()
    return np.asarray(keys & ((1 << row_bits) - 1))


def _order_ties(events: _Events) -> _Events:
    """Put events of one user and moment in the order of item, event type, part and weight."""
    same = (events.user[1:] == events.user[:-1]) & (events.time_ms[1:] == events.time_ms[:-1])
    if not same.any():
        return events
    tied = np.zeros(len(events), dtype=np.bool_)
    tied[1:] |= same
    tied[:-1] |= same
    places = np.flatnonzero(tied)
    run = np.cumsum(np.concatenate([[True], ~same]))[places]
    order = np.arange(len(events))
    ties = (events.weight[places], events.split[places], events.event[places], events.item[places], run)
    order[places] = places[np.lexsort(ties)]
    return _Events(*(column[order] for column in vars(events).values()))


def _repeats(events: _Events) -> Flags:
    """Whether an event equals the one before it in user, time, item and type."""
    repeated = np.zeros(len(events), dtype=np.bool_)
    columns = (events.user, events.time_ms, events.item, events.event)
    repeated[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return repeated


def _drop(events: _Events, kept: Flags, reason: str, dropped: dict[str, int]) -> _Events:
    lost = len(events) - int(kept.sum())
    if not lost:
        return events
    dropped[reason] = lost
    return events.keep(kept)


def _user_sizes(events: _Events) -> Ints:
    """For each event, how many events its user has."""
    return np.bincount(events.user)[events.user] if len(events) else np.zeros(0, dtype=np.int64)


def _after_held_out(events: _Events) -> Flags:
    """Whether an event's user has an event of a later part at an earlier moment."""
    rank = events.user * len(schema.SPLITS) + events.split
    opens = (np.diff(events.user, prepend=-1) != 0) | (np.diff(events.time_ms, prepend=0) != 0)
    moment = np.maximum.accumulate(np.where(opens, np.arange(len(events)), 0))
    highest = np.append(-1, np.maximum.accumulate(rank))  # of all events so far; earlier users are lower than this one
    return np.asarray(highest[moment] > rank)


def _assign_split(events: _Events, users: Any, rules: PairRules, cuts: Cuts) -> npt.NDArray[np.int8]:
    if isinstance(rules.split, LeaveLastOut):
        sizes = _user_sizes(events)
        after = _user_ends(events)[events.user] - 1 - np.arange(len(events)) if len(events) else sizes
        return np.where((after < 2) & (sizes >= 3), np.where(after == 0, TEST, VAL), TRAIN).astype(np.int8)
    if isinstance(rules.split, ColumnSplit):
        held_out = rules.split.hold_out_val and not cuts.val_is_named and len(events)
        if not held_out:
            return events.split
        return _hold_out_last(events) if rules.history == "before" else _hold_out_drawn(events, users)
    return ((events.time_ms >= cuts.val_from_ms).astype(np.int8) + (events.time_ms >= cuts.test_from_ms)).astype(
        np.int8
    )


def _hold_out_last(events: _Events) -> npt.NDArray[np.int8]:
    """Give validation the last training event of each user with three or more."""
    training = np.flatnonzero(events.split == TRAIN)
    _, last, sizes = np.unique(events.user[training][::-1], return_index=True, return_counts=True)
    split = events.split.copy()
    split[training[::-1][last[sizes >= 3]]] = VAL
    return split


def _hold_out_drawn(events: _Events, users: Any) -> npt.NDArray[np.int8]:
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


def _out_of_order(events: _Events) -> bool:
    """Whether a part named by a column runs against time within some user."""
    return bool(np.any((events.split[1:] < events.split[:-1]) & (events.user[1:] == events.user[:-1])))


def _user_ends(events: _Events) -> Ints:
    """Of each user, the place after the last event."""
    return np.cumsum(np.bincount(events.user, minlength=int(events.user.max(initial=-1)) + 1))


def _pack(events: _Events, part: int, users: Any, user_rows: npt.NDArray[np.int32]) -> pa.Table:
    """The sequences of users with targets in ``part``."""
    num_users = len(users)
    targets = np.bincount(events.user[events.split == part], minlength=num_users)
    context = np.bincount(events.user[events.split < part], minlength=num_users)
    chosen = targets > 0
    included = chosen[events.user] & (events.split <= part)
    sizes = (targets + context)[chosen]
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    return pa.Table.from_arrays(
        [
            users.filter(pa.array(chosen)),
            pa.array(user_rows[chosen]),
            pa.array(context[chosen].astype(np.int32)),
            pa.ListArray.from_arrays(offsets, pa.array(events.item[included])),
            pa.ListArray.from_arrays(offsets, pa.array(events.weight[included])),
            pa.ListArray.from_arrays(offsets, pa.array(events.time_ms[included])),
        ],
        schema=schema.sequences(users.type),
    )


def _distinct(column: Any) -> tuple[Any, Ints]:
    """Distinct values in ascending order, and for each row the place of its value."""
    encoded = pc.dictionary_encode(whole(column))
    order = pc.sort_indices(encoded.dictionary).to_numpy(zero_copy_only=False)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return encoded.dictionary.take(pa.array(order)), rank[encoded.indices.to_numpy(zero_copy_only=False)]


def _numpy(column: Any) -> npt.NDArray[Any]:
    return np.asarray(column.to_numpy())


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
