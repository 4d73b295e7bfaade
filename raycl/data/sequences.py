"""The pair kernel: the events of whole users to packed, split sequences, by sorting and index arithmetic alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.config import PairRules
from raycl.data import rules, splits
from raycl.data.columns import dense, whole
from raycl.data.id_map import IdMap
from raycl.data.packed import Sequences, Targets, ranges
from raycl.data.rules import Dropped, Events, Flags, Ints
from raycl.data.splits import CONTEXT, TRAIN, VAL, Cuts

_SPARSE = 8
"""So many times more rows of the vocabulary than events are counted by sorting."""
_ALL_TYPES = 256
"""No type is after these."""


@dataclass(frozen=True)
class Built:
    """The sequences of some users, and what did not get in."""

    table: pa.Table
    """``schema.sequences``, users ascending"""
    event_types: npt.NDArray[np.uint8]
    """The type of every event of the table, end to end."""
    num_events: int
    """Explicit negatives included."""
    num_pairs: dict[str, int]
    packed: Sequences
    """The table, unpacked."""
    targets: dict[str, Targets]
    """By part, the events that make its pairs."""
    dropped: pa.Table
    """Events that were left out: ``user``, ``reason`` and how many ``rows``."""
    negatives: Events | None = None
    """The explicit negatives of the table, end to end; None where the rules have none."""

    @property
    def dropped_rows(self) -> dict[str, int]:
        """Events that were left out, by reason."""
        summed = self.dropped.group_by("reason", use_threads=False).aggregate([("rows", "sum")])
        return dict(zip(summed["reason"].to_pylist(), summed["rows_sum"].to_pylist(), strict=True))


@dataclass(frozen=True)
class Cleaned:
    """The sorted events of some users after the rules that look at one user at a time."""

    events: Events
    """All but the explicit negatives."""
    users: Any
    """Raw ids, ascending; ``events.user`` numbers them."""
    dropped: Dropped
    names_val: bool
    """Whether a row, kept or not, says that it is validation; explicit negatives are not asked."""
    negatives: Events | None = None
    """None where the rules have none."""


class Items(Protocol):
    """What tells the vocabulary row of an item, as ``IdMap`` does; -1 for one that may not be in pairs."""

    def rows(self, ids: Any) -> npt.NDArray[np.int32]:
        """The row of each of these ids, (ids,)."""


def clean(events: pa.Table, items: Items, chosen: PairRules, seed: int = 0, num_types: int = _ALL_TYPES) -> Cleaned:
    """Sort the events of some users (``schema.events``) and apply the first rules.

    Event types after the first ``num_types`` are explicit negatives, which go through these rules as all events do.

    Rows leave in this order, counted by reason: ``rare_item`` (not in ``items``), ``duplicate`` (same user, item, time
    and event type), ``robot_user`` (over ``max_user_events`` or ``max_user_rate``), ``repeat`` (within
    ``repeat_window_s`` of a kept one).
    """
    users, user_codes = _distinct(events["user"])
    found = _sort(user_codes, items.rows(events["item"]), events, splits.named(events, chosen, seed))
    dropped = Dropped()
    is_val = found.split == VAL
    if chosen.has_negatives:
        is_val &= ~rules.negatives(found.event, found.weight, chosen, num_types)
    kept = rules.drop(found, found.item >= 0, "rare_item", dropped)
    kept = rules.drop(kept, ~rules.duplicates(kept), "duplicate", dropped)
    robots = rules.user_sizes(kept) > chosen.max_user_events
    if chosen.max_user_rate:
        robots |= rules.faster_than(kept, chosen.max_user_rate)
    kept = rules.drop(kept, ~robots, "robot_user", dropped)
    if chosen.repeat_window_s:
        kept = rules.drop(kept, ~rules.repeats(kept, chosen.repeat_window_s), "repeat", dropped)
    if not chosen.has_negatives:
        return Cleaned(kept, users, dropped, bool(is_val.any()))
    negative = rules.negatives(kept.event, kept.weight, chosen, num_types)
    return Cleaned(kept.take(~negative), users, dropped, bool(is_val.any()), kept.take(negative))


def build(
    events: pa.Table,
    items: Items,
    users: IdMap | None,
    chosen: PairRules,
    cuts: Cuts,
    *,
    seed: int = 0,
    in_core: Flags | None = None,
    type_weights: Sequence[float] = (1.0,),
    num_types: int = _ALL_TYPES,
) -> Built:
    """Turn all events of some users (``schema.events``) into split sequences (``schema.sequences``).

    What ``clean`` leaves loses, in this order: ``rare_item`` (not ``in_core`` (num_items,), of an iterated core),
    ``after_held_out`` (later than the user's first event of a later part, which would see it as history),
    ``rare_user``, and ``over_cap`` (beyond ``keep_user_events``). ``num_events`` is what remains. The result does not
    depend on the order of the rows. ``seed`` draws what is cold; ``type_weights`` are those of the event types, for
    events without a weight of their own; of several types the table says which. Types after the first ``num_types`` are
    explicit negatives. Those are counted for none of this, and lose ``held_out_negative`` (of a part that is not
    training, where rows say it) and ``rare_user`` (of a user with no other event left) besides.
    """
    cleaned = clean(events, items, chosen, seed, num_types)
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
    negatives = _kept_negatives(cleaned, kept, chosen, in_core)
    if _out_of_order(kept):
        kept = kept.take(np.lexsort((np.arange(len(kept)), kept.split, kept.user)))
    user_rows = users.rows(users_here) if users is not None else np.full(len(users_here), -1, dtype=np.int32)
    carried = schema.context_columns(events.column_names)
    context = {name: whole(events[name]).take(pa.array(kept.row)) for name in carried}
    table = _pack(kept, users_here, user_rows, type_weights, context, negatives)
    return describe(table, kept.event, dropped.by_user(users_here), chosen, negatives)


def describe(
    table: pa.Table,
    event_types: npt.NDArray[np.uint8],
    dropped: pa.Table,
    chosen: PairRules,
    negatives: Events | None = None,
) -> Built:
    """The sequences of a table, and the pairs in them."""
    packed = Sequences.from_table(table)
    targets = {part: packed.pairs(chosen, part) for part in schema.SPLITS}
    return Built(
        table,
        event_types,
        len(event_types) + (len(packed.negatives.items) if packed.negatives else 0),
        {part: len(found.places) for part, found in targets.items()},
        packed,
        targets,
        dropped,
        negatives,
    )


def _kept_negatives(cleaned: Cleaned, kept: Events, chosen: PairRules, in_core: Flags | None) -> Events | None:
    """The explicit negatives that go along with the events that are ``kept``; the others are counted as dropped."""
    found, dropped = cleaned.negatives, cleaned.dropped
    if found is None:
        return None
    if in_core is not None:
        found = rules.drop(found, in_core[found.item], "rare_item", dropped)
    found = rules.drop(found, found.split == TRAIN, "held_out_negative", dropped)
    has_events = np.bincount(kept.user, minlength=len(cleaned.users)) > 0
    found = rules.drop(found, has_events[found.user], "rare_user", dropped)
    if chosen.keep_user_events:
        every = np.ones(len(found), dtype=np.bool_)
        found = rules.drop(found, ~rules.over_cap(found, every, chosen.keep_user_events), "over_cap", dropped)
    return found


def count_items(built: Built) -> pa.Table:
    """How often each ``item`` is an event of training (``train_count``) and the target of a pair of each part.

    Training's pairs are ``train_targets``; items that are none of these are left out.
    """
    packed = built.packed
    trained, _ = ranges(packed.bounds[TRAIN], packed.bounds[VAL])
    places = {"train_count": trained, "train_targets": built.targets["train"].places}
    places |= {part: built.targets[part].places for part in schema.SPLITS[1:]}
    found = {name: packed.items[chosen] for name, chosen in places.items()}
    size = int(packed.items.max(initial=-1)) + 1
    if size > _SPARSE * len(packed.items):
        rows: Ints = np.unique(packed.items).astype(np.int64)
        counts = {name: np.bincount(np.searchsorted(rows, one), minlength=len(rows)) for name, one in found.items()}
        return pa.table({"item": rows, **counts})
    counts = {name: np.bincount(one, minlength=size) for name, one in found.items()}
    rows = np.flatnonzero(np.bitwise_or.reduce(list(counts.values())))
    return pa.table({"item": rows, **{name: count[rows] for name, count in counts.items()}})


def _sort(user: Ints, item: npt.NDArray[np.int32], events: pa.Table, split: npt.NDArray[np.int8]) -> Events:
    time_ms = _numpy(events["time_ms"])
    weight = _numpy(events["weight"]) if "weight" in events.column_names else None
    context = [whole(events[name]) for name in schema.context_columns(events.column_names)]
    row = np.arange(len(user)) if context else None
    columns = Events(user, item, time_ms, weight, _numpy(events["event"]), split, row)
    return _order_ties(columns.take(_order_by_user_and_time(user, time_ms)), context)


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


def _order_ties(events: Events, context: Sequence[Any] = ()) -> Events:
    """Put events of one user and moment in the order of item, event type, part, weight and ``context``, in place.

    Of context every array holds the values of one column by ``events.row``.
    """
    same = (events.user[1:] == events.user[:-1]) & (events.time_ms[1:] == events.time_ms[:-1])
    if not same.any():
        return events
    tied = np.zeros(len(events), dtype=np.bool_)
    tied[1:] |= same
    tied[:-1] |= same
    places = np.flatnonzero(tied)
    run = np.cumsum(np.concatenate([[True], ~same]))[places]
    ties = [column[places] for column in (events.weight, events.split, events.event, events.item) if column is not None]
    if events.row is not None:
        rows = pa.array(events.row[places])
        ranks = [_numpy(pc.rank(column.take(rows), tiebreaker="dense")) for column in context]
        ties = [*ranks, *ties]
    ordered = places[np.lexsort((*ties, run))]
    for column in (events.item, events.weight, events.event, events.split, events.row):
        if column is not None:
            column[places] = column[ordered]
    return events


def _out_of_order(events: Events) -> bool:
    """Whether a part named by a column runs against time within some user."""
    return bool(np.any((events.split[1:] < events.split[:-1]) & (events.user[1:] == events.user[:-1])))


def _pack(
    events: Events,
    users: Any,
    user_rows: npt.NDArray[np.int32],
    type_weights: Sequence[float],
    context: Mapping[str, Any],
    negatives: Events | None,
) -> pa.Table:
    """One row for each of ``users`` with events, which are in the order of their parts, as ``context`` is."""
    codes = len(schema.SPLITS) + 1  # the first is that of context
    by_part = np.bincount(events.user * codes + events.split - CONTEXT, minlength=codes * len(users))
    ends = np.cumsum(by_part.reshape(-1, codes), axis=1)
    chosen = np.flatnonzero(ends[:, -1])
    offsets = pa.array(np.concatenate([[0], np.cumsum(ends[chosen, -1])]).astype(np.int32))
    weight = np.array(type_weights, dtype=np.float32)[events.event] if events.weight is None else events.weight
    columns = [events.item, weight, events.time_ms, *([events.event] if len(type_weights) > 1 else [])]
    lists = [pa.ListArray.from_arrays(offsets, column) for column in [*map(pa.array, columns), *context.values()]]
    if negatives is not None:
        sizes = np.bincount(negatives.user, minlength=len(users))[chosen]
        offsets = pa.array(np.append(0, np.cumsum(sizes)).astype(np.int32))
        columns = [negatives.item, negatives.time_ms, negatives.event]
        lists += [pa.ListArray.from_arrays(offsets, pa.array(column)) for column in columns]
    return pa.Table.from_arrays(
        [
            users.take(pa.array(chosen)),
            pa.array(user_rows[chosen]),
            *(pa.array(ends[chosen, code].astype(np.int32)) for code in range(len(schema.BOUNDS))),
            *lists,
        ],
        schema=schema.sequences(
            users.type,
            event_types=len(type_weights) > 1,
            negatives=negatives is not None,
            context={schema.context_name(column): values.type for column, values in context.items()},
        ),
    )


def _distinct(column: Any) -> tuple[Any, Ints]:
    """Distinct values in ascending order, and for each row the place of its value."""
    if (near := dense(column)) is not None:
        numbers, least = near
        is_there = np.zeros(int(numbers.max()) + 1, dtype=np.bool_)
        is_there[numbers] = True
        return pa.array(np.flatnonzero(is_there) + least), (np.cumsum(is_there) - 1)[numbers]
    encoded = pc.dictionary_encode(whole(column))
    order = pc.sort_indices(encoded.dictionary).to_numpy(zero_copy_only=False)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return encoded.dictionary.take(pa.array(order)), rank[encoded.indices.to_numpy(zero_copy_only=False)]


def _numpy(column: Any) -> npt.NDArray[Any]:
    return np.asarray(column.to_numpy())
