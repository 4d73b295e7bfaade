"""The data report of a pairs version, as ``report.json`` has it: what the log held, what became of it, and the drift.

Days are in UTC. Shares lie between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from raycl import schema
from raycl.config import Config
from raycl.data.histogram import Histogram
from raycl.data.report_items import ItemCounts
from raycl.data.report_sketch import Kept, Rows

Ints = npt.NDArray[np.int64]

NO_TYPE = "event"
"""What the events of a log without a column of types are called."""
_EPOCH = date(1970, 1, 1)


class Section(BaseModel):
    """A part of the report: frozen. Fields that this raycl does not know are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class Dropped(Section):
    """Rows that one rule left out."""

    reason: str
    rows: int
    share: float
    """Of all rows of the log."""


class Nulls(Section):
    """Nulls of one column."""

    column: str
    """What the column is to raycl: ``user``, ``item``, ``time``, ``event``, ``weight`` or ``split``."""
    nulls: int
    rows: int
    """Rows of the logs that have such a column."""
    share: float


class Day(Section):
    """One day with rows."""

    day: date
    rows: int
    """Rows of the log, bad ones included."""
    events: int
    """Events that are left after all rules."""


class Days(Section):
    """Rows and events by day."""

    counts: tuple[Day, ...]
    """In the order of time; days without rows are left out."""
    undated_rows: int
    """Rows without a believable time."""
    undated_events: int
    """Events of logs that have no times."""


class EventType(Section):
    """Rows and events of one event type."""

    type: str
    rows: int
    """Rows of the log, bad ones included. Those of a log without such a column count as the first type."""
    events: int
    rows_share: float
    """Of the rows of all named types."""
    events_share: float


class UnknownType(Section):
    """Rows of an event type that neither ``event_weights`` nor ``pairs.negative_events`` names."""

    type: str
    """At most 100 characters of it."""
    rows: int


class EventTypes(Section):
    """Rows and events by event type."""

    named: tuple[EventType, ...]
    """Those of ``event_weights``, in its order, and then those of ``pairs.negative_events``."""
    null_rows: int
    """Rows whose event type is null."""
    unknown: tuple[UnknownType, ...]
    """Types that the config does not name: the first 50 in the order of the alphabet, most rows first."""
    unknown_rest_rows: int
    """Rows of the others."""


class Octave(Section):
    """Users, items or targets whose size lies between two powers of two, both bounds included."""

    first: int
    last: int
    number: int
    number_share: float
    total: int
    """Events of all of them; for histories the sum of the lengths."""
    total_share: float


class Curve(Section):
    """How sizes are distributed. Sizes of 64 and more are known to 1/32, and so is what follows from them."""

    number: int
    total: int
    mean: float
    median: int
    p90: int
    p99: int
    most: int
    """Exact."""
    gini: float
    """0 where all are equal, towards 1 where one has everything."""
    top_1_percent: float
    """Share of the total that belongs to the largest 1 %."""
    top_10_percent: float
    octaves: tuple[Octave, ...]
    at_least: tuple[tuple[int, int], ...]
    """The curve: a size, and how many are of this size or larger."""

    @classmethod
    def of(cls, sizes: Histogram) -> Self:
        """The curve of a histogram."""
        return cls(
            number=sizes.number,
            total=sizes.total,
            mean=_share(sizes.total, sizes.number),
            median=sizes.quantile(0.5),
            p90=sizes.quantile(0.9),
            p99=sizes.quantile(0.99),
            most=sizes.most,
            gini=sizes.gini(),
            top_1_percent=sizes.head_share(0.01),
            top_10_percent=sizes.head_share(0.1),
            octaves=tuple(
                Octave(
                    **vars(octave),
                    number_share=_share(octave.number, sizes.number),
                    total_share=_share(octave.total, sizes.total),
                )
                for octave in sizes.octaves()
            ),
            at_least=tuple(zip(*(column.tolist() for column in sizes.at_least()), strict=True)),
        )


class Part(Section):
    """One part of the split."""

    part: str
    users: int
    """Users with events in the part's files."""
    pairs: int
    pairs_share: float
    first: datetime | None
    """Time of the earliest target; None where there is none with a time."""
    last: datetime | None
    history: Curve
    """Of each target, how many earlier events its pair may look at, before ``pairs.max_history`` cuts them."""
    cut_share: float
    """Share of the targets with more earlier events than ``pairs.max_history`` lets through, to 1/32 from 64 on."""


class Cold(Section):
    """Items that training never sees as a target or in a history."""

    items: int
    """Items of the vocabulary."""
    cold_items: int
    cold_share: float
    val_targets: int
    val_cold_targets: int
    """Validation targets whose item training never sees."""
    val_cold_share: float
    test_targets: int
    test_cold_targets: int
    test_cold_share: float


class Change(Section):
    """One measure, in the version before and in this one."""

    measure: str
    before: float
    now: float


class Drift(Section):
    """What changed since the newest version in the workspace that was made of another log or by another config.

    Distances are Jensen-Shannon distances to base 2: 0 for equal shares, 1 where nothing is common.
    """

    against: str | None
    """The version compared with; None where there is none."""
    reason: str
    """Why there is nothing to compare with."""
    config: tuple[str, ...] = ()
    """Settings that differ, as dotted names."""
    sizes: tuple[Change, ...] = ()
    """Rows, events, users, items, and rows and events a day that has any."""
    distances: tuple[tuple[str, float], ...] = ()
    """Of the shares of event types, of items, of users by power of two of their events, of histories likewise."""
    types: tuple[Change, ...] = ()
    """By event type, its share of the events."""
    nulls: tuple[Change, ...] = ()
    """By column, the share of nulls."""
    dropped: tuple[Change, ...] = ()
    """By reason, the share of the rows."""
    new_items: int = 0
    """Items with events in this log and none in the one before."""
    new_items_share: float = 0.0
    """What they hold of this log's events."""
    gone_items: int = 0
    """Items with events in the log before and none in this one."""
    gone_items_share: float = 0.0
    """What they held of that log's events."""
    common_days: int = 0
    """Days with rows in both."""
    common_days_rows: Change | None = None
    """Rows of these days: late rows, or lost ones."""


class Report(Section):
    """Everything that the report says."""

    format: Literal[1] = 1
    """Another number stands for a report that this code would misread; a field that is only added keeps the number."""
    fingerprint: str
    """Of the version's input and config."""
    rows: int
    """Rows of the log."""
    events: int
    """Events that are left after all rules, explicit negatives included."""
    dropped: tuple[Dropped, ...]
    """Most rows first."""
    nulls: tuple[Nulls, ...]
    days: Days
    types: EventTypes
    users: Curve
    """Events a user, after all rules, explicit negatives included."""
    items: Curve
    """Good rows an item, of all items of the vocabulary: before the rules that look at users."""
    max_history: int
    parts: tuple[Part, ...]
    cold: Cold
    drift: Drift = Drift(against=None, reason="it was not compared")


def build(
    fingerprint: str,
    config: Config,
    counts: Mapping[str, int],
    dropped: Mapping[str, int],
    read: Rows,
    kept: Kept,
    items: ItemCounts,
) -> Report:
    """The report of one version, not yet compared with another; ``counts`` and ``dropped`` are the manifest's."""
    num_rows = counts["rows_in"]
    return Report(
        fingerprint=fingerprint,
        rows=num_rows,
        events=counts["events"],
        dropped=tuple(
            Dropped(reason=reason, rows=rows, share=_share(rows, num_rows))
            for reason, rows in sorted(dropped.items(), key=lambda one: (-one[1], one[0]))
        ),
        nulls=tuple(
            Nulls(column=role, nulls=nulls, rows=rows, share=_share(nulls, rows))
            for role, (nulls, rows) in read.nulls.items()
        ),
        days=_days(read, kept),
        types=_types(config, read, kept),
        users=Curve.of(kept.users),
        items=Curve.of(items.sizes),
        max_history=config.pairs.max_history,
        parts=tuple(_part(part, counts, kept, config.pairs.max_history) for part in schema.SPLITS),
        cold=_cold(items),
    )


def type_names(config: Config) -> Sequence[str]:
    """The event types of a log by their codes; one word stands for all events of logs that have no types."""
    has_types = any(log.columns.event is not None for log in config.logs)
    return [*config.event_weights, *config.pairs.negative_events] if has_types else [NO_TYPE]


def _days(read: Rows, kept: Kept) -> Days:
    return Days(
        counts=tuple(
            Day(day=_EPOCH + timedelta(days=day), rows=read.days.get(day, 0), events=kept.days.get(day, 0))
            for day in sorted(read.days.keys() | kept.days.keys())
        ),
        undated_rows=read.undated,
        undated_events=kept.undated,
    )


def _types(config: Config, read: Rows, kept: Kept) -> EventTypes:
    num_rows, num_events = sum(read.types), sum(kept.types)
    named = zip(type_names(config), read.types, kept.types, strict=False)
    return EventTypes(
        named=tuple(
            EventType(
                type=name,
                rows=rows,
                events=events,
                rows_share=_share(rows, num_rows),
                events_share=_share(events, num_events),
            )
            for name, rows, events in named
        ),
        null_rows=read.unnamed,
        unknown=tuple(
            UnknownType(type=name, rows=rows)
            for name, rows in sorted(read.unknown.items(), key=lambda one: (-one[1], one[0]))
        ),
        unknown_rest_rows=read.unknown_rest,
    )


def _part(part: str, counts: Mapping[str, int], kept: Kept, max_history: int) -> Part:
    all_pairs = sum(counts[f"{name}_pairs"] for name in schema.SPLITS)
    lengths, span = kept.history[part], kept.spans.get(part)
    sizes, reached = lengths.at_least()
    over = reached[sizes > max_history]
    return Part(
        part=part,
        users=counts[f"{part}_users"],
        pairs=counts[f"{part}_pairs"],
        pairs_share=_share(counts[f"{part}_pairs"], all_pairs),
        first=_moment(span.first_ms) if span else None,
        last=_moment(span.last_ms) if span else None,
        history=Curve.of(lengths),
        cut_share=_share(int(over[0]) if len(over) else 0, lengths.number),
    )


def _cold(items: ItemCounts) -> Cold:
    fields: dict[str, float] = {}
    for part, total in items.targets.items():
        cold = items.cold_targets[part]
        fields |= {f"{part}_targets": total, f"{part}_cold_targets": cold, f"{part}_cold_share": _share(cold, total)}
    known = items.sizes.number
    return Cold.model_validate(
        {"items": known, "cold_items": items.cold, "cold_share": _share(items.cold, known), **fields}
    )


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=time_ms)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
