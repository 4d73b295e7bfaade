"""The pair kernel: the events of whole users to packed, split sequences, by sorting and index arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.config import ColdItems, PairRules
from raycl.data import reader, rules, splits
from raycl.data.columns import whole
from raycl.data.rules import Events, Flags, Ints
from raycl.data.splits import TRAIN, VAL, Cuts
from raycl.data.vocabulary import IdMap


@dataclass(frozen=True)
class Built:
    """The sequences of each part, and what did not get in."""

    parts: dict[str, pa.Table]
    event_types: dict[str, npt.NDArray[np.uint8]]
    """Of each part, the type of every event in its sequences, end to end: what tells events of one moment apart."""
    dropped: dict[str, int]
    num_events: int
    num_pairs: dict[str, int]
    train_counts: Ints
    """Events of each item in training, of shape (num_items,): what users did."""
    train_targets: Ints
    """Training pairs whose target is the item, of shape (num_items,): what a batch draws."""


@dataclass(frozen=True)
class Cleaned:
    """The sorted events of some users after the rules that look at one user at a time."""

    events: Events
    users: Any
    """Raw ids, ascending; ``events.user`` numbers them."""
    dropped: dict[str, int]
    names_val: bool
    """Whether a row, kept or not, says that it is validation."""


def clean(events: pa.Table, items: IdMap, chosen: PairRules, item_counts: Ints | None = None, seed: int = 0) -> Cleaned:
    """Sort the events of some users (``schema.events``) and apply the first rules.

    Rows leave in this order, counted by reason: ``rare_item`` (not in ``items``, or under ``min_item_events`` in
    ``item_counts``), ``duplicate`` (same user, item, time and event type), ``robot_user`` (over ``max_user_events`` or
    ``max_user_rate``), ``repeat`` (within ``repeat_window_s`` of a kept one).
    """
    users, user_codes = _distinct(events["user"])
    found = _sort(user_codes, items.rows(events["item"]), events, splits.named(events, chosen, seed))
    dropped: dict[str, int] = {}
    known = found.item >= 0
    if item_counts is not None:
        known[known] = item_counts[found.item[known]] >= chosen.min_item_events
    kept = rules.drop(found, known, "rare_item", dropped)
    kept = rules.drop(kept, ~rules.duplicates(kept), "duplicate", dropped)
    robots = rules.user_sizes(kept) > chosen.max_user_events
    if chosen.max_user_rate:
        robots |= rules.faster_than(kept, chosen.max_user_rate)
    kept = rules.drop(kept, ~robots, "robot_user", dropped)
    if chosen.repeat_window_s:
        kept = rules.drop(kept, ~rules.repeats(kept, chosen.repeat_window_s), "repeat", dropped)
    return Cleaned(kept, users, dropped, bool((found.split == VAL).any()))


def build(
    events: pa.Table,
    items: IdMap,
    users: IdMap | None,
    chosen: PairRules,
    cuts: Cuts,
    item_counts: Ints | None = None,
    *,
    seed: int = 0,
    in_core: Flags | None = None,
) -> Built:
    """Turn all events of some users (``schema.events``) into the sequences of each part (``schema.sequences``).

    What ``clean`` leaves loses, in this order: ``rare_item`` (not ``in_core`` (num_items,), of an iterated core),
    ``after_held_out`` (later than the user's first event of a later part, which would see it as history),
    ``rare_user``, and ``over_cap`` (beyond ``keep_user_events``). ``num_events`` is what remains. The result does not
    depend on the order of the rows. ``seed`` draws what is cold.
    """
    cleaned = clean(events, items, chosen, item_counts, seed)
    kept, users_here, dropped = cleaned.events, cleaned.users, cleaned.dropped
    if in_core is not None:
        kept = rules.drop(kept, in_core[kept.item], "rare_item", dropped)
    if chosen.history == "before" and splits.follow_names(chosen):
        kept = rules.drop(kept, ~rules.after_held_out(kept), "after_held_out", dropped)
    kept = rules.drop(kept, rules.user_sizes(kept) >= chosen.min_user_events, "rare_user", dropped)

    named = replace(cuts, val_is_named=cuts.val_is_named or cleaned.names_val)
    kept = replace(kept, split=splits.assign(kept, users_here, chosen, named, seed))
    if chosen.keep_user_events:
        over = rules.over_cap(kept, kept.split <= TRAIN, chosen.keep_user_events)
        kept = rules.drop(kept, ~over, "over_cap", dropped)
    if _out_of_order(kept):
        kept = kept.take(np.lexsort((np.arange(len(kept)), kept.split, kept.user)))
    user_rows = users.rows(users_here) if users is not None else np.full(len(users_here), -1, dtype=np.int32)
    last_context = [TRAIN if isinstance(chosen.split, ColdItems) else code - 1 for code in range(len(schema.SPLITS))]
    included = [_included(kept, code, last_context[code], len(users_here)) for code in range(len(schema.SPLITS))]
    parts = {
        part: _pack(kept.take(places), code, users_here, user_rows)
        for code, (part, places) in enumerate(zip(schema.SPLITS, included, strict=True))
    }
    targets = {part: _target_items(table, chosen, held_out=part != "train") for part, table in parts.items()}
    return Built(
        parts,
        {part: kept.event[places] for part, places in zip(schema.SPLITS, included, strict=True)},
        dropped,
        len(kept),
        {part: len(drawn) for part, drawn in targets.items()},
        _count(kept.item[kept.split == TRAIN], len(items)),
        _count(targets["train"], len(items)),
    )


def _target_items(table: pa.Table, chosen: PairRules, *, held_out: bool) -> npt.NDArray[np.int32]:
    """The item of each pair that the reader will make of this part."""
    packed = reader.Sequences.from_table(table)
    return packed.items[packed.targets(chosen, held_out=held_out)]


def _count(item: npt.NDArray[np.int32], num_items: int) -> Ints:
    return np.bincount(item, minlength=num_items).astype(np.int64)


def _sort(user: Ints, item: npt.NDArray[np.int32], events: pa.Table, split: npt.NDArray[np.int8]) -> Events:
    time_ms = _numpy(events["time_ms"])
    columns = Events(user, item, time_ms, _numpy(events["weight"]), _numpy(events["event"]), split)
    return _order_ties(columns.take(_order_by_user_and_time(user, time_ms)))


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


def _order_ties(events: Events) -> Events:
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
    return events.take(order)


def _out_of_order(events: Events) -> bool:
    """Whether a part named by a column runs against time within some user."""
    return bool(np.any((events.split[1:] < events.split[:-1]) & (events.user[1:] == events.user[:-1])))


def _included(events: Events, part: int, last_context: int, num_users: int) -> Ints:
    """The places of the targets of ``part``, and of what their users have up to ``last_context``."""
    is_target = events.split == part
    has_target = np.zeros(num_users, dtype=np.bool_)
    has_target[events.user[is_target]] = True
    return np.flatnonzero(
        is_target | (has_target[events.user] & (events.split < part) & (events.split <= last_context))
    )


def _pack(events: Events, part: int, users: Any, user_rows: npt.NDArray[np.int32]) -> pa.Table:
    """The sequences of these events, those before ``part`` as context."""
    sizes = np.bincount(events.user, minlength=len(users))
    context = np.bincount(events.user[events.split < part], minlength=len(users))
    chosen = sizes > 0
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes[chosen])]).astype(np.int32))
    return pa.Table.from_arrays(
        [
            users.filter(pa.array(chosen)),
            pa.array(user_rows[chosen]),
            pa.array(context[chosen].astype(np.int32)),
            pa.ListArray.from_arrays(offsets, pa.array(events.item)),
            pa.ListArray.from_arrays(offsets, pa.array(events.weight)),
            pa.ListArray.from_arrays(offsets, pa.array(events.time_ms)),
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
