"""Columns of a release's catalogue, kept so that a filter over all items is a few passes over short arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl.data.columns import whole
from raycl.errors import InputError
from raycl.index.selection import Mask
from raycl.serving import filters
from raycl.serving.filters import Filter, ItemId, Value

RowsOf = Callable[[Sequence[ItemId]], npt.NDArray[np.int32]]
"""Item ids to rows of the vocabulary, -1 for one that is not in it."""


class Column(Protocol):
    """One column, asked for the rows in which something holds."""

    def among(self, values: Sequence[Value]) -> Mask:
        """Rows that have one of the values; TypeError for a value of another type."""

    def between(self, low: Value | None, high: Value | None) -> Mask:
        """Rows from ``low`` to ``high``; TypeError for a bound of another type, or a column without order."""

    def likeness(self, value: Any) -> npt.NDArray[np.float32]:
        """How alike each row is to a value, from 0 to 1; all 0 for one that the column cannot compare."""

    def groups(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """The same number for rows of the same value, -1 for none; TypeError for lists."""


@dataclass(frozen=True)
class Coded:
    """Text, or lists of it: each distinct value a number."""

    codes: npt.NDArray[np.int32]
    """One a row, -1 where there is none; of lists those of all rows end to end."""
    code_of: dict[str, int]
    offsets: npt.NDArray[np.int64] | None = None
    """Of lists: where each row begins, (rows + 1,)."""

    def among(self, values: Sequence[Value]) -> Mask:
        """Rows that have, or hold, one of the texts."""
        for value in values:
            if not isinstance(value, str):
                raise TypeError("is not text")
        wanted = np.zeros(len(self.code_of) + 1, dtype=np.bool_)  # the last one stands for code -1
        wanted[[self.code_of[str(value)] for value in values if value in self.code_of]] = True
        hit: Mask = wanted[self.codes]
        if self.offsets is None:
            return hit
        return np.diff(np.append(0, np.cumsum(hit))[self.offsets]) > 0

    def between(self, low: Value | None, high: Value | None) -> Mask:
        """Text has no order here."""
        raise TypeError("is a bound, and the column is text: use eq or in")

    def likeness(self, value: Any) -> npt.NDArray[np.float32]:
        """1 for the same text, or one of the texts."""
        given = value if isinstance(value, list) else [value]
        return self.among([one for one in given if isinstance(one, str)]).astype(np.float32)

    def groups(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """The codes; a list has none."""
        if self.offsets is not None:
            raise TypeError("holds lists, and a cap needs one value an item")
        return self.codes[rows]


@dataclass(frozen=True)
class Numbers:
    """Whole numbers, floats, or moments as whole numbers of their unit."""

    values: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    known: Mask
    moment: Any = None
    """The Arrow type of dates and times."""

    def among(self, values: Sequence[Value]) -> Mask:
        """Rows that equal one of the numbers."""
        numbers = [self._number(value) for value in values]
        if self.values.dtype == np.int64:
            numbers = [int(one) for one in numbers if math.isfinite(one) and one == int(one) and abs(int(one)) < 2**63]
        else:
            numbers = [_as_float(one) for one in numbers]
        return np.asarray(np.isin(self.values, np.array(numbers, dtype=self.values.dtype)) & self.known)

    def between(self, low: Value | None, high: Value | None) -> Mask:
        """Rows within the bounds, exact for whole numbers of any size."""
        held = self.known.copy()
        for bound, above in ((low, True), (high, False)):
            if bound is None:
                continue
            number: float | int = self._number(bound)
            if self.values.dtype == np.int64:
                number = math.ceil(number) if above else math.floor(number)
                if not -(2**63) <= number < 2**63:
                    held &= (number < 0) == above
                    continue
            else:
                number = _as_float(number)
            held &= (self.values >= number) if above else (self.values <= number)
        return held

    def likeness(self, value: Any) -> npt.NDArray[np.float32]:
        """1 less the distance as a share of the column's whole range; a number may come as text."""
        alike = np.zeros(len(self.values), dtype=np.float32)
        try:
            is_text = isinstance(value, str) and self.moment is None
            number = float(value) if is_text else _as_float(self._number(value))
        except (TypeError, ValueError):
            return alike
        known = self.values[self.known].astype(np.float64)
        if known.size and math.isfinite(number):
            span = float(known.max() - known.min()) or 1.0
            alike[self.known] = np.clip(1.0 - np.abs(known - number) / span, 0.0, 1.0)
        return alike

    def groups(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """A number for each distinct value among the rows."""
        _, groups = np.unique(self.values[rows], return_inverse=True)
        return np.where(self.known[rows], groups, -1).astype(np.int32)

    def _number(self, value: Any) -> float | int:
        if self.moment is not None:
            if not isinstance(value, str):
                raise TypeError("is no date or time in ISO text")
            try:
                return int(pa.scalar(value).cast(self.moment).value)
            except (pa.ArrowException, UnicodeError) as error:
                raise TypeError("is no date or time in ISO text") from error
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError("is not a number")
        return value


@dataclass(frozen=True)
class Flags:
    """Truth values."""

    values: Mask
    known: Mask

    def among(self, values: Sequence[Value]) -> Mask:
        """Rows that are true, or false, as asked for."""
        for value in values:
            if not isinstance(value, bool):
                raise TypeError("is not true or false")
        held = np.zeros(len(self.values), dtype=np.bool_)
        for value in set(values):
            held |= self.values == value
        return held & self.known

    def between(self, low: Value | None, high: Value | None) -> Mask:
        """Truth values have no order here."""
        raise TypeError("is a bound, and the column is true or false: use eq")

    def likeness(self, value: Any) -> npt.NDArray[np.float32]:
        """1 for the same; it may come as text."""
        value = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
        return self.among([value] if isinstance(value, bool) else []).astype(np.float32)

    def groups(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """0 and 1."""
        return np.where(self.known[rows], self.values[rows], -1).astype(np.int32)


def column(values: Any) -> Column | None:
    """The column ready to be asked; None for one of a type that filters do not know."""
    values = whole(values)
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if _is_text(kind):
        return _coded(values, None)
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type):
        sizes = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        return _coded(values.flatten(), np.append(0, np.cumsum(sizes)).astype(np.int64))
    known = values.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(kind):
        return Flags(values.fill_null(False).to_numpy(zero_copy_only=False), known)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        whole_numbers = values.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(pa.int64())
        return Numbers(whole_numbers.fill_null(0).to_numpy(zero_copy_only=False), known, kind)
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return Numbers(values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), known)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_uint64(kind):
        floats = values.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
        return Numbers(floats, ~np.isnan(floats))
    return None


class Columns:
    """The columns of a catalogue that filters may name, and what a filter keeps."""

    def __init__(
        self, catalogue: pa.Table, filterable: Sequence[str] | None, available: str | None, rows_of: RowsOf
    ) -> None:
        """``filterable``: by default every column that can be; one that the catalogue lacks is none of them.

        ``available``: the column that says which items can be had: a truth value, or a number above 0.
        """
        self.num_rows = catalogue.num_rows
        self._rows_of = rows_of
        chosen = catalogue.column_names if filterable is None else filterable
        own = ("item", "title", "train_count", "train_targets")
        named = [name for name in chosen if name in catalogue.column_names and (filterable or name not in own)]
        made = {name: column(catalogue[name]) for name in named}
        self.by_name = {name: one for name, one in made.items() if one is not None}
        self._available = _available(catalogue, available)

    def keep(self, node: Filter) -> Mask:
        """The rows that an expression keeps, (num_rows,); InputError naming the column that cannot answer it."""
        if isinstance(node, filters.And):
            return np.asarray(np.logical_and.reduce([self._all(), *(self.keep(one) for one in node.of)]))
        if isinstance(node, filters.Or):
            return np.asarray(np.logical_or.reduce([~self._all(), *(self.keep(one) for one in node.of)]))
        if isinstance(node, filters.Not):
            return ~self.keep(node.of)
        if isinstance(node, filters.Items):
            rows = self._rows_of(node.ids)
            held = np.zeros(self.num_rows, dtype=np.bool_)
            held[rows[rows >= 0]] = True
            return held
        if isinstance(node, filters.Available):
            if self._available is None:
                raise InputError("filter op=available: this service knows no availability; set serving.available")
            return self._available
        return self._of_column(node)

    def groups(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """The same number for rows of the same value of a column, -1 for none; InputError where it has no groups."""
        try:
            return self._named(f"diversity.max_per.{name}", name).groups(rows)
        except TypeError as error:
            raise InputError(f"diversity.max_per.{name}: the column {error}") from error

    def likest(self, features: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        """How alike each row is to these values by column, from 0 to their number; other columns are passed over."""
        alike = np.zeros(self.num_rows, dtype=np.float32)
        for name, value in features.items():
            if name in self.by_name:
                alike += self.by_name[name].likeness(value)
        return alike

    def _named(self, place: str, name: str) -> Column:
        found = self.by_name.get(name)
        if found is None:
            names = ", ".join(self.by_name) or "none"
            raise InputError(f"{place}: column={name!r} cannot be filtered by; these can: {names}")
        return found

    def _all(self) -> Mask:
        return np.ones(self.num_rows, dtype=np.bool_)

    def _of_column(self, node: filters.Equals | filters.In | filters.Range) -> Mask:
        found = self._named(f"filter op={node.op}", node.column)
        try:
            if isinstance(node, filters.Range):
                return found.between(node.min, node.max)
            return found.among([node.value] if isinstance(node, filters.Equals) else node.values)
        except TypeError as error:
            raise InputError(f"filter op={node.op} column={node.column}: what is given {error}") from error


def _coded(values: Any, offsets: npt.NDArray[np.int64] | None) -> Coded:
    encoded = values.cast(pa.large_string()).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Coded(codes, {text: code for code, text in enumerate(encoded.dictionary.to_pylist())}, offsets)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _available(catalogue: pa.Table, name: str | None) -> Mask | None:
    found = column(catalogue[name]) if name is not None and name in catalogue.column_names else None
    if isinstance(found, Flags):
        return found.among([True])
    return np.asarray(found.known & (found.values > 0)) if isinstance(found, Numbers) else None


def _as_float(number: float | int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
