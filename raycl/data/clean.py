"""Raw log rows to events: each row is kept, or set aside with one reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.config import LogSource, PairRules
from raycl.data.columns import whole
from raycl.data.id_map import IdMap
from raycl.data.rules import negatives
from raycl.data.times import TimeRange, to_ms
from raycl.errors import InputError

REASONS = (
    "null_user",
    "null_item",
    "null_time",
    "time_out_of_range",
    "unknown_event",
    "bad_weight",
    "unknown_split",
    "unknown_item",
)
"""Why a single row is quarantined; a row with several faults carries the first of these."""

OUTSIDE_RANGE = "outside_range"
"""Why a good row is left out of a log that is read in a range of times."""

MAX_ID_BYTES = 1024
"""Longer text is no id."""

_SPLIT_CODES = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Cleaner:
    """How the rows of one log are read.

    ``latest_ms`` is the newest believable time (exclusive); ``known_items`` the catalogue's ids, or None without one.
    Events have a weight or a part of their own only ``with_weights`` and ``with_splits``. ``context`` says the types of
    the columns that go along with every event.
    """

    log: LogSource
    event_weights: Mapping[str, float]
    latest_ms: int
    user_type: pa.DataType
    item_type: pa.DataType
    known_items: IdMap | None = None
    with_weights: bool = True
    with_splits: bool = True
    negative_events: tuple[str, ...] = ()
    """Event types of explicit negatives, whose codes follow those of ``event_weights``."""
    context: Mapping[str, pa.DataType] = field(default_factory=dict)

    def outside(self, table: pa.Table) -> npt.NDArray[np.bool_] | None:
        """Of each row, whether it has a believable time that is not of the log's range; None for a log without one.

        A row whose time is none, or none that an event can have, stays to be quarantined.
        """
        within = TimeRange.of(self.log)
        if within is None:
            return None
        times = self._times(table, faults := np.zeros(table.num_rows, dtype=np.uint8))
        return np.asarray((faults == 0) & within.outside(times))

    def clean(
        self, table: pa.Table, first_row: int = 0, left_out: npt.NDArray[np.bool_] | None = None
    ) -> tuple[pa.Table, pa.Table]:
        """Split ``table`` into events (``schema.events``) and quarantined rows (its columns, ``reason`` and ``row``).

        Every row is in exactly one of the two, in its order, but for those ``left_out``, which are in neither. ``row``
        is the row's number in its file, counted from 0; ``first_row`` that of the first row of ``table``.
        """
        columns = self.log.columns
        faults = np.zeros(table.num_rows, dtype=np.uint8)
        user = ids(table, columns.user, self.user_type)
        item = ids(table, columns.item, self.item_type)
        _mark(faults, "null_user", _nulls(user))
        _mark(faults, "null_item", _nulls(item))
        time_ms = self._times(table, faults)
        event, weight = self._weights(table, faults)
        split = self._splits(table, faults)
        if self.known_items is not None:
            _mark(faults, "unknown_item", self.known_items.rows(item) < 0)
        good, bad = faults == 0, faults != 0
        if left_out is not None:
            good, bad = good & ~left_out, bad & ~left_out
        types = dict(self.context)
        kept = schema.events(
            self.user_type, self.item_type, weights=self.with_weights, splits=self.with_splits, context=types
        )
        made = {"user": user, "item": item, "time_ms": time_ms, "weight": weight, "event": event, "split": split}
        made |= {schema.context_column(name): context(table, name, kind) for name, kind in types.items()}
        cleaned = pa.table({name: made[name] for name in kept.names}, schema=kept)
        rows = np.flatnonzero(bad)
        reasons = pa.DictionaryArray.from_arrays(faults[rows].astype(np.int8) - 1, REASONS).cast(pa.string())
        aside = table.take(pa.array(rows)).append_column("reason", reasons)
        aside = aside.append_column("row", pa.array(first_row + rows))
        return cleaned if good.all() else cleaned.filter(pa.array(good)), aside

    def first_beyond(self, bad: pa.Table) -> int | None:
        """The earliest time among quarantined rows that was too late to be believed; None without any."""
        if self.log.columns.time is None:
            return None
        late = bad.filter(pc.equal(bad["reason"], "time_out_of_range"))
        times = self._times(late, np.zeros(late.num_rows, dtype=np.uint8))
        beyond = times[times >= self.latest_ms]
        return int(beyond.min()) if len(beyond) else None

    def _times(self, table: pa.Table, faults: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        if self.log.columns.time is None:
            return np.zeros(table.num_rows, dtype=np.int64)
        column = whole(table[self.log.columns.time])
        if pa.types.is_null(column.type):
            column = column.cast(pa.int64())
        _mark(faults, "null_time", _nulls(column))
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            milliseconds = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
            times = np.asarray(milliseconds.fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            times = to_ms(column.fill_null(0).to_numpy(zero_copy_only=False), self.log.time_unit)
        else:
            raise InputError(
                f"columns.time={self.log.columns.time} is of type {column.type}: use a timestamp or an integer"
            )
        _mark(faults, "time_out_of_range", (times <= 0) | (times >= self.latest_ms))
        return times

    def _weights(
        self, table: pa.Table, faults: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Event codes (places in ``event_weights``, then in ``negative_events``) and weights, of negative types 0."""
        codes = np.zeros(table.num_rows, dtype=np.uint8)
        weights_of = list(self.event_weights.values()) or [1.0]
        of_types = np.array([*weights_of, *(0.0 for _ in self.negative_events)], dtype=np.float64)
        if self.log.columns.event is not None:
            positions = self._places(table, "event", [*self.event_weights, *self.negative_events])
            _mark(faults, "unknown_event", positions < 0)
            codes = np.maximum(positions, 0).astype(np.uint8)
        else:
            of_types = np.ones(1, dtype=np.float64)
        if self.log.columns.weight is None:
            return codes, of_types.astype(np.float32)[codes]
        column = whole(table[self.log.columns.weight])
        try:
            column = column.cast(pa.float64(), safe=False)
        except pa.ArrowException as error:
            raise InputError(
                f"columns.weight={self.log.columns.weight} is of type {column.type}: use a number ({error})"
            ) from error
        factors = column.fill_null(float("nan")).to_numpy(zero_copy_only=False)
        if self.log.weight_scale == "log":
            with np.errstate(invalid="ignore", divide="ignore"):
                factors = np.log1p(factors)
        weights = of_types[codes] * factors
        with np.errstate(over="ignore"):
            kept = weights.astype(np.float32)
        if self.negative_events:
            kept[codes >= len(weights_of)] = 0  # whatever the log says of it
        bad = ~(np.isfinite(kept) & (kept >= 0))
        _mark(faults, "bad_weight", bad)
        return codes, np.where(bad, np.float32(0), kept)

    def _splits(self, table: pa.Table, faults: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
        if self.log.columns.split is None:
            return np.zeros(table.num_rows, dtype=np.int8)
        positions = self._places(table, "split", list(_SPLIT_CODES))
        _mark(faults, "unknown_split", positions < 0)
        codes = np.array(list(_SPLIT_CODES.values()), dtype=np.int8)
        return np.asarray(codes[np.maximum(positions, 0)])

    def _places(self, table: pa.Table, role: str, known: Sequence[str]) -> npt.NDArray[np.int32]:
        """Of each row the place of its word among the ``known`` ones, -1 for any other and for none."""
        column = whole(table[getattr(self.log.columns, role)])
        words = column.dictionary if pa.types.is_dictionary(column.type) else column
        try:
            words = words.cast(pa.large_string())
        except pa.ArrowException as error:
            raise InputError(
                f"columns.{role}={getattr(self.log.columns, role)} is of type {column.type}: use strings or integers"
                f" ({error})"
            ) from error
        found = pc.index_in(words, value_set=pa.array(known, pa.large_string()))
        if pa.types.is_dictionary(column.type):
            found = found.take(column.indices)
        return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32)


def positive(events: pa.Table, chosen: PairRules, num_types: int) -> pa.Table:
    """Events (``schema.events``) without the explicit negatives, whose types come after the first ``num_types``."""
    if not chosen.has_negatives:
        return events
    weight = events["weight"].to_numpy() if "weight" in events.column_names else None
    return events.filter(pa.array(~negatives(events["event"].to_numpy(), weight, chosen, num_types)))


def count_reasons(bad: pa.Table) -> dict[str, int]:
    """Quarantined rows by reason, in the order of ``REASONS``."""
    counts = {str(row["values"]): int(row["counts"]) for row in bad["reason"].value_counts().to_pylist()}
    return {reason: counts[reason] for reason in REASONS if reason in counts}


def count_outside(outside: npt.NDArray[np.bool_] | None) -> dict[str, int]:
    """Rows outside of the log's range, as a reason; empty where there are none."""
    rows = 0 if outside is None else int(np.count_nonzero(outside))
    return {OUTSIDE_RANGE: rows} if rows else {}


def _mark(faults: npt.NDArray[np.uint8], reason: str, rows: npt.NDArray[np.bool_]) -> None:
    faults[rows & (faults == 0)] = REASONS.index(reason) + 1


def _nulls(array: Any) -> npt.NDArray[np.bool_]:
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)


def ids(table: pa.Table, column: str, wanted: pa.DataType) -> Any:
    """Ids in the type of the hand-off; null for text that is empty, endless or no UTF-8, and for numbers not whole."""
    array = whole(table[column])
    if pa.types.is_floating(array.type):
        array = array.cast(pa.float64())
        is_whole = pc.and_(pc.equal(array, pc.floor(array)), pc.less(pc.abs(array), 2.0**63))
        array = pc.if_else(is_whole, array, pa.scalar(None, array.type))
    try:
        array = array.cast(wanted)
    except pa.ArrowException as error:
        raise InputError(f"column '{column}' does not fit {wanted}: {error}") from error
    if pa.types.is_large_string(wanted):
        length = pc.binary_length(array)
        malformed = pc.or_(pc.equal(length, 0), pc.greater(length, MAX_ID_BYTES))
        array = pc.if_else(pc.or_kleene(malformed, _not_utf8(array)), pa.scalar(None, wanted), array)
    return array


def context(table: pa.Table, column: str, wanted: pa.DataType) -> Any:
    """A column that goes along with events, in the type of the hand-off; text that is no UTF-8 is null."""
    array = whole(table[column])
    try:
        array = array.cast(wanted)
    except pa.ArrowException as error:
        raise InputError(f"column '{column}' does not fit {wanted}: {error}") from error
    if pa.types.is_large_string(wanted):
        array = pc.if_else(pc.fill_null(_not_utf8(array), False), pa.scalar(None, wanted), array)
    return array


def _not_utf8(text: Any) -> Any:
    """Of each value, whether its bytes are no UTF-8; one false for all where every value is good, as nearly always."""
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        distinct = text.cast(pa.large_binary()).dictionary_encode()
        bad = [value.decode(errors="ignore").encode() != value for value in distinct.dictionary.to_pylist()]
        return pa.array(bad, pa.bool_()).take(distinct.indices)
    return pa.scalar(False)
