"""Users' whole sequences as flat arrays, and where the targets of each part lie in them, by index arithmetic alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.config import PairRules
from raycl.data.columns import whole
from raycl.data.hashing import mix

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Spans(NamedTuple):
    """Of each user, flat places: targets of one part from ``first`` to before ``stop``.

    Their past ends before ``context_end`` for those that see no other target of the part.
    """

    context_end: Ints
    first: Ints
    stop: Ints


class Targets(NamedTuple):
    """The events that make the pairs of one part."""

    places: Ints
    """Flat places, ascending."""
    history_sizes: Ints
    """Of each, how many events its pair may look at, before ``max_history`` cuts them: those strictly before it; in
    item-to-item pairs those that may be its anchor; with ``history: others`` the user's other training events, and for
    a held-out target its context."""


@dataclass(frozen=True)
class Negatives:
    """Explicit negatives of users end to end, in time order: those of user ``u`` from ``offsets[u]`` on."""

    offsets: Ints
    """(users + 1,)"""
    items: Rows
    times_ms: Ints
    events: npt.NDArray[np.uint8]
    """Codes of the event types"""

    @classmethod
    def from_table(cls, table: pa.Table) -> Negatives:
        """Read ``schema.NEGATIVES`` without copying the lists."""
        lists = [whole(table[name]) for name in schema.NEGATIVES]
        return cls(_offsets(lists[0]), *(_numpy(column.flatten()) for column in lists))

    def ends_before(self, users: Ints, times_ms: Ints) -> Ints:
        """Of each pair of a user and a moment, where that user's negatives before the moment end.

        Users lie end to end on one axis, on which a moment counts by its rank among all of them.
        """
        moments, ranks = np.unique(self.times_ms, return_inverse=True)
        axis = self.owner * (len(moments) + 1) + ranks
        return np.searchsorted(axis, users * (len(moments) + 1) + np.searchsorted(moments, times_ms))

    def some(self, users: Ints, width: int) -> Rows:
        """Of each user some whatever their time, the same for one user: (users, width), then -1."""
        return last_of(self._hashed, self.offsets[users], self.offsets[users + 1], width)

    @cached_property
    def owner(self) -> Ints:
        """The user of each."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @cached_property
    def _hashed(self) -> Rows:
        """Items in an order within each user that hashes of their places give."""
        return self.items[np.lexsort((mix(np.arange(len(self.items), dtype=np.uint64)), self.owner))]


@dataclass(frozen=True)
class Sequences:
    """Sequences end to end: user ``u`` has the flat places ``offsets[u]`` to ``offsets[u + 1]`` of the columns."""

    offsets: Ints
    """(users + 1,)"""
    bounds: Ints
    """(4, users): the targets of the ``p``-th part lie from ``bounds[p]`` to before ``bounds[p + 1]``."""
    items: Rows
    weights: npt.NDArray[np.float32]
    times_ms: Ints
    user_row: Rows
    """(users,)"""
    negatives: Negatives | None = None
    """Of the same users; None where the table has none."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """By name in the log: Arrow arrays (places,)."""

    def __len__(self) -> int:
        return len(self.user_row)

    @classmethod
    def from_table(cls, table: pa.Table, part: str | None = None) -> Sequences:
        """Read the columns of ``schema.sequences`` without copying the lists; of one ``part``, users with targets."""
        if part is not None and not (chosen := has_targets(table, part)).all():
            table = table.filter(pa.array(chosen))
        lists, weights, times = (whole(table[name]) for name in ("items", "weights", "times_ms"))
        offsets = _offsets(lists)
        context = schema.context_columns(table.column_names)
        return cls(
            offsets,
            np.stack([*(offsets[:-1] + _numpy(table[name]) for name in schema.BOUNDS), offsets[1:]]),
            _numpy(lists.flatten()),
            _numpy(weights.flatten()),
            _numpy(times.flatten()),
            _numpy(table["user_row"]),
            Negatives.from_table(table) if schema.NEGATIVES[0] in table.column_names else None,
            {schema.context_name(name): whole(table[name]).flatten() for name in context},
        )

    @cached_property
    def moment(self) -> Ints:
        """Of each place, the first place with its user and time: what is strictly before an event ends there."""
        opens = np.diff(self.times_ms, prepend=0) != 0
        opens[self.offsets[:-1][np.diff(self.offsets) > 0]] = True
        return np.maximum.accumulate(np.where(opens, np.arange(len(self.times_ms)), 0))

    @cached_property
    def _negatives_end(self) -> Ints:
        """Of each place, where its user's explicit negatives strictly before its time end."""
        assert self.negatives is not None
        users = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return self.negatives.ends_before(users, self.times_ms)

    def negatives_of(self, places: Ints, rules: PairRules) -> Rows | None:
        """The explicit negatives of the targets at these places: (places, max_negatives), then -1; None without any.

        The newest strictly before the target's time; where events have no order, some of the user's.
        """
        if self.negatives is None:
            return None
        users = self.users_at(places)
        if rules.history == "others":
            return self.negatives.some(users, rules.max_negatives)
        starts, ends = self.negatives.offsets[users], self._negatives_end[places]
        return last_of(self.negatives.items, starts, ends, rules.max_negatives)

    def users_at(self, places: Ints) -> Ints:
        """The user of each of these places."""
        return np.asarray(np.searchsorted(self.offsets, places, side="right") - 1)

    def spans(self, part: str, rules: PairRules) -> Spans:
        """Where each user's targets of ``part`` lie; held-out targets of cold items have training alone behind them."""
        code = schema.SPLITS.index(part)
        behind = min(code, 1) if rules.split.kind == "cold_items" else code
        return Spans(self.bounds[behind], self.bounds[code], self.bounds[code + 1])

    def targets(self, rules: PairRules, part: str = "train") -> Ints:
        """Flat places of every event that makes a pair of ``part``, ascending."""
        return self.pairs(rules, part).places

    def pairs(self, rules: PairRules, part: str = "train") -> Targets:
        """Every event that makes a pair of ``part``, and how much its pair may look at."""
        spans = self.spans(part, rules)
        places, users = ranges(spans.first, spans.stop)
        starts = self.offsets[:-1]
        if rules.history == "others":
            behind = (spans.first - starts if part != "train" else spans.stop - starts - 1)[users]
            kept = behind >= rules.min_history
            return Targets(places[kept], behind[kept])
        ends = self.moment[places]
        if part != "train" and rules.split.kind == "cold_items":  # earlier targets are no history of later ones
            ends = np.minimum(ends, spans.context_end[users])
        sizes = ends - starts[users]
        kept = sizes >= rules.min_history
        if rules.kind == "item_to_item":
            sizes = ends - self.anchors_from(rules)[places]
            kept &= sizes > 0
        return Targets(places, sizes) if kept.all() else Targets(places[kept], sizes[kept])

    def anchors_from(self, rules: PairRules) -> Ints:
        """Of each place, the first one of its user that may be its anchor in an item-to-item pair.

        At most ``rules.within_s`` earlier, and with no pause of more than ``rules.session_gap_s`` up to the place.
        """
        sizes = np.diff(self.offsets)
        first = np.repeat(self.offsets[:-1], sizes)
        if not len(first):
            return first
        if rules.session_gap_s is not None:
            opens = np.diff(self.times_ms, prepend=0) > 1000 * rules.session_gap_s
            first = np.maximum(first, np.maximum.accumulate(np.where(opens, np.arange(len(first)), 0)))
        if rules.within_s is not None:
            # Users end to end on one axis of time, further apart than the window is long.
            since = self.times_ms - np.repeat(self.times_ms[self.offsets[:-1][sizes > 0]], sizes[sizes > 0])
            window = 1000 * rules.within_s
            axis = since + np.repeat(np.cumsum(np.append(0, _spans(since, self.offsets)[:-1] + window + 1)), sizes)
            first = np.maximum(first, np.searchsorted(axis, axis - window))
        return first

    def states(self, rules: PairRules, part: str) -> Rows:
        """Each user's state before the first target of ``part``: (users, max_history), newest first, then -1.

        Every user must have one. Only items strictly before the target's time. Where events have no order, some of
        all context items, drawn by hash of the place.
        """
        spans = self.spans(part, rules)
        if rules.history == "before":
            return last_of(self.items, self.offsets[:-1], self.history_ends(spans), rules.max_history)
        users = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        is_context = np.arange(len(self.items)) < spans.first[users]
        drawn = mix(np.arange(len(self.items), dtype=np.uint64))
        shuffled = self.items[np.lexsort((drawn, ~is_context, users))]
        return last_of(shuffled, self.offsets[:-1], spans.first, rules.max_history)

    def history_ends(self, spans: Spans) -> Ints:
        """Of each user the flat place before which the history of the first of these targets ends."""
        return np.minimum(self.moment[spans.first], spans.context_end) if len(self) else spans.first

    def trained_on(self) -> Sequences:
        """The same users with what training knows of them alone."""
        sizes = self.bounds[1] - self.offsets[:-1]
        places, _ = ranges(self.offsets[:-1], self.bounds[1])
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        bounds = np.stack([offsets[:-1] + self.bounds[0] - self.offsets[:-1], *[offsets[1:]] * 3])
        columns = {name: getattr(self, name)[places] for name in ("items", "weights", "times_ms")}
        context = {name: values.take(pa.array(places)) for name, values in self.context.items()}
        return replace(self, offsets=offsets, bounds=bounds, context=context, **columns)


def has_targets(table: pa.Table, part: str) -> Flags:
    """Of each row of ``schema.sequences``, whether the user has targets in ``part``."""
    code = schema.SPLITS.index(part)
    last = code + 1 == len(schema.SPLITS)
    stop = pc.list_value_length(table["items"]) if last else table[schema.BOUNDS[code + 1]]
    return np.asarray(_numpy(stop) > _numpy(table[schema.BOUNDS[code]]))


def ranges(starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
    """The places of runs end to end, and which run each is of."""
    sizes = stops - starts
    run = np.repeat(np.arange(len(sizes)), sizes)
    return np.arange(len(run)) + (starts - np.cumsum(sizes) + sizes)[run], run


def last_of(items: Rows, starts: Ints, ends: Ints, width: int) -> Rows:
    """The last ``width`` of the items from each of ``starts`` to before its end, the last one first, then -1."""
    if not len(items):
        return np.full((len(starts), width), -1, dtype=np.int32)
    places = (ends - 1)[:, None] - np.arange(width)
    return np.where(places >= starts[:, None], items[np.maximum(places, 0)], -1).astype(np.int32)


def _offsets(lists: Any) -> Ints:
    """Where each list of an Arrow array begins among the values of all, and the end of the last."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0] if len(offsets) else np.zeros(1, dtype=np.int64)


def _spans(since: Ints, offsets: Ints) -> Ints:
    """Of each user, the time from the first event to the last."""
    spans = np.zeros(len(offsets) - 1, dtype=np.int64)
    some = np.diff(offsets) > 0
    spans[some] = since[offsets[1:][some] - 1]
    return spans


def _numpy(column: Any) -> npt.NDArray[Any]:
    return np.asarray(whole(column).to_numpy(zero_copy_only=False))
