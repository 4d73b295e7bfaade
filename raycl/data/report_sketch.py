"""What a task of the pairs stage tells the data report: a few numbers that add up to those of the whole log.

A sketch is plain JSON. Its size is bounded whatever the log holds: by the days since 1970 that occur, by the event
types of the config, and by the bins of a histogram.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.config import Columns
from raycl.data.clean import Cleaner
from raycl.data.columns import whole
from raycl.data.histogram import Histogram
from raycl.data.sequences import Built
from raycl.data.times import DAY_MS

Ints = npt.NDArray[np.int64]
Sketch = dict[str, Any]

_MOST_NAMES, _LONGEST_NAME = 50, 100
_FEW_CODES = 16
_ROLES = ("user", "item", "time", "event", "weight", "split")


@dataclass(frozen=True)
class Rows:
    """Log rows as they were read, good and bad, within the range of times that the config asks for."""

    days: dict[int, int] = field(default_factory=dict)
    """Rows by day since 1970, in UTC."""
    undated: int = 0
    """Rows without a believable time."""
    types: tuple[int, ...] = ()
    """Rows by place of their event type in ``event_weights`` and then in ``pairs.negative_events``."""
    unnamed: int = 0
    """Rows whose event type is null."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Rows by event type that the config does not name: the first 50 such names in the order of the alphabet, each cut
    after 100 characters."""
    unknown_rest: int = 0
    """Rows of the other names."""
    nulls: dict[str, list[int]] = field(default_factory=dict)
    """By role of a column: rows where it is null and must not be, and rows of logs that have it."""

    @classmethod
    def of(cls, cleaner: Cleaner, events: pa.Table, bad: pa.Table) -> Rows:
        """What ``cleaner`` made of a table: its events, and the rows that it set aside."""
        has_time, has_event = cleaner.log.columns.time is not None, cleaner.log.columns.event is not None
        dated, _ = _alone(cleaner, bad, "time") if has_time else (bad.slice(0, 0), bad)
        typed, untyped = _alone(cleaner, bad, "event") if has_event else (bad.slice(0, 0), bad.slice(0, 0))
        times = [_numpy(part["time_ms"]) for part in ([events, dated] if has_time else [])]
        codes = [_numpy(part["event"]) for part in ([events, typed] if has_event else [events])]
        days = _count_days(np.concatenate(times)) if times else {}
        num_rows = events.num_rows + bad.num_rows
        num_types = len(cleaner.event_weights) + len(cleaner.negative_events)
        types = np.sum([_count_codes(part, max(num_types, 1)) for part in codes], axis=0)
        if not has_event:
            types[0] += bad.num_rows
        unnamed, unknown, rest = _count_names(untyped["value"]) if has_event else (0, {}, 0)
        named = {role: getattr(cleaner.log.columns, role) for role in _ROLES}
        nulls = {role: [whole(bad[name]).null_count, num_rows] for role, name in named.items() if name}
        undated = num_rows - sum(days.values())
        return cls(days, undated, tuple(types.tolist()), unnamed, unknown, rest, nulls)

    @classmethod
    def merged(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of all parts, in any order."""
        names, rest = _keep_first(_add(part.unknown for part in parts))
        nulls: dict[str, list[int]] = {}
        for role in _ROLES:
            counted = [part.nulls[role] for part in parts if role in part.nulls]
            nulls |= {role: [sum(column) for column in zip(*counted, strict=True)]} if counted else {}
        return cls(
            _add(part.days for part in parts),
            sum(part.undated for part in parts),
            _add_columns([part.types for part in parts]),
            sum(part.unnamed for part in parts),
            names,
            rest + sum(part.unknown_rest for part in parts),
            nulls,
        )

    def to_json(self) -> Sketch:
        """Plain values."""
        return {**vars(self), "days": [list(self.days), list(self.days.values())]}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Rows:
        """What ``to_json`` made."""
        days = dict(zip(*plain["days"], strict=True))
        return cls(**{**plain, "days": days, "types": tuple(plain["types"])})


@dataclass(frozen=True)
class Span:
    """The times of a part's targets in milliseconds, both included."""

    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class Kept:
    """The events of whole users after all rules, explicit negatives included, and the pairs made of them."""

    days: dict[int, int] = field(default_factory=dict)
    undated: int = 0
    types: tuple[int, ...] = ()
    users: Histogram = field(default_factory=lambda: Histogram.merged([]))
    """Events a user."""
    history: dict[str, Histogram] = field(default_factory=dict)
    """By part: of each target, how many earlier events its pair may look at, before ``max_history`` cuts them."""
    spans: dict[str, Span] = field(default_factory=dict)
    """By part: the times of its targets, where it has any with a time."""

    @classmethod
    def of(cls, built: Built, num_types: int) -> Kept:
        """What the kernel made of the events of some users; ``num_types`` are those of the config."""
        packed, spans = built.packed, {}
        for part, found in built.targets.items():
            dated = packed.times_ms[found.places]
            dated = dated[dated > 0]
            if len(dated):
                spans[part] = Span(int(dated.min()), int(dated.max()))
        times_ms, types, sizes = packed.times_ms, built.event_types, np.diff(packed.offsets)
        if (negatives := packed.negatives) is not None:
            times_ms, types = np.append(times_ms, negatives.times_ms), np.append(types, negatives.events)
            sizes = sizes + np.diff(negatives.offsets)
        days = _count_days(times_ms)
        return cls(
            days,
            len(times_ms) - sum(days.values()),
            tuple(_count_codes(types, max(num_types, 1)).tolist()),
            Histogram.of(sizes),
            {part: Histogram.of(found.history_sizes) for part, found in built.targets.items()},
            spans,
        )

    @classmethod
    def merged(cls, parts: Sequence[Kept]) -> Kept:
        """The events of all parts, in any order; a user is in one of them."""
        spans = {}
        for name in schema.SPLITS:
            found = [part.spans[name] for part in parts if name in part.spans]
            if found:
                spans[name] = Span(min(one.first_ms for one in found), max(one.last_ms for one in found))
        return cls(
            _add(part.days for part in parts),
            sum(part.undated for part in parts),
            _add_columns([part.types for part in parts]),
            Histogram.merged([part.users for part in parts]),
            {name: Histogram.merged([part.history[name] for part in parts]) for name in schema.SPLITS},
            spans,
        )

    def to_json(self) -> Sketch:
        """Plain values."""
        return {
            **vars(self),
            "days": [list(self.days), list(self.days.values())],
            "users": self.users.to_json(),
            "history": {part: lengths.to_json() for part, lengths in self.history.items()},
            "spans": {part: vars(span) for part, span in self.spans.items()},
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Kept:
        """What ``to_json`` made."""
        read = {
            "days": dict(zip(*plain["days"], strict=True)),
            "types": tuple(plain["types"]),
            "users": Histogram.from_json(plain["users"]),
            "history": {part: Histogram.from_json(lengths) for part, lengths in plain["history"].items()},
            "spans": {part: Span(**span) for part, span in plain["spans"].items()},
        }
        return cls(**{**plain, **read})


def _alone(cleaner: Cleaner, table: pa.Table, role: str) -> tuple[pa.Table, pa.Table]:
    """The rows of a table whose column of one role is good, and the others, as ``Cleaner.clean`` tells them apart."""
    columns = {"user": "id", "item": "id", "time": None, role: "value"}
    log = cleaner.log.model_copy(update={"columns": Columns.model_validate(columns)})
    ids = pa.array(np.zeros(table.num_rows, dtype=np.int64))
    only = replace(cleaner, log=log, user_type=pa.int64(), item_type=pa.int64(), known_items=None, context={})
    return only.clean(pa.table({"id": ids, "value": table[getattr(cleaner.log.columns, role)]}))


def _count_codes(codes: npt.NDArray[np.uint8], num_codes: int) -> Ints:
    """How often each code below ``num_codes`` occurs; a few are sooner looked for one after the other."""
    if num_codes > _FEW_CODES:
        return np.bincount(codes, minlength=num_codes)
    return np.array([np.count_nonzero(codes == code) for code in range(num_codes)])


def _count_days(times_ms: Ints) -> dict[int, int]:
    """Events by day of those that have a time."""
    days = (times_ms // DAY_MS)[times_ms > 0]
    if not len(days):
        return {}
    first = int(days.min())
    counts = np.bincount(days - first)
    return {first + int(day): int(counts[day]) for day in np.flatnonzero(counts)}


def _count_names(names: Any) -> tuple[int, dict[str, int], int]:
    """How many are null; rows of the first names of the alphabet; rows of the others."""
    words = whole(names).cast(pa.large_string())
    cut = pc.utf8_slice_codeunits(words.drop_null(), 0, _LONGEST_NAME)
    counted = pc.value_counts(cut)
    values, counts = counted.field("values"), counted.field("counts")
    first = pc.array_sort_indices(values)[:_MOST_NAMES]
    found = dict(zip(values.take(first).to_pylist(), counts.take(first).to_pylist(), strict=True))
    return words.null_count, found, len(cut) - sum(found.values())


def _keep_first(counts: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """The first names in the order of their bytes, and the sum of the others.

    A name that is kept was kept by every part that saw it, so its count is whole however the parts were cut.
    """
    names = sorted(counts, key=str.encode)
    return {name: counts[name] for name in names[:_MOST_NAMES]}, sum(counts[name] for name in names[_MOST_NAMES:])


def _add(counts: Iterable[Mapping[Any, int]]) -> dict[Any, int]:
    total: dict[Any, int] = {}
    for part in counts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    return dict(sorted(total.items()))


def _add_columns(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*rows, strict=True))


def _numpy(column: Any) -> npt.NDArray[Any]:
    return np.asarray(column.to_numpy())
