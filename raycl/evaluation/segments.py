"""Which part of the users or of the items a result is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl.evaluation.metrics import Floats, Ints

UNKNOWN, OTHER = "unknown", "other"
_MOST_VALUES = 20
"""Values of a column that are segments of their own, the most frequent ones; the rest are one together."""
_QUARTERS = ("first quarter", "second quarter", "third quarter", "last quarter")


@dataclass(frozen=True)
class Segments:
    """One way to divide users or items: the labels of its segments, and the place among them of each row."""

    name: str
    labels: tuple[str, ...]
    codes: npt.NDArray[np.int16]

    def take(self, rows: npt.NDArray[Any], *, missing: bool = False) -> Segments:
        """The segments of these rows; with ``missing``, a row of -1 is of the segment of what is unknown."""
        if not missing:
            return Segments(self.name, self.labels, self.codes[rows])
        labels = self.labels if UNKNOWN in self.labels else (*self.labels, UNKNOWN)
        codes = np.append(self.codes, labels.index(UNKNOWN)).astype(np.int16)
        return Segments(self.name, labels, codes[rows])


def popularity(train_counts: Ints, cuts: Sequence[float]) -> Segments:
    """Head, middle and tail of the items by their share of the training events.

    The head is the most popular items that together have the share ``cuts[0]`` of the events, the item that reaches it
    included; head and middle together have ``cuts[1]``. Items of equal counts follow in the order of their rows.
    """
    order = np.lexsort((np.arange(len(train_counts)), -train_counts))
    total = max(int(train_counts.sum()), 1)
    before = (np.cumsum(train_counts[order]) - train_counts[order]) / total
    codes = np.empty(len(order), dtype=np.int16)
    codes[order] = np.where(train_counts[order] > 0, (before >= cuts[0]).astype(np.int16) + (before >= cuts[1]), 2)
    return Segments("popularity", ("head", "middle", "tail"), codes)


def age(num_events: Ints, new_below: int) -> Segments:
    """New where fewer than ``new_below`` events are known of it, else old."""
    return Segments("age", ("new", "old"), (num_events >= new_below).astype(np.int16))


def of_column(name: str, column: Any) -> Segments:
    """Segments of an Arrow array: of numbers with many values quarters of the rows, else the most frequent values.

    Nulls, blanks and numbers that are none are of the segment ``unknown``.
    """
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        known = values[np.isfinite(values)]
        if len(np.unique(known)) > _MOST_VALUES:
            return _quarters(name, values, known)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    texts = column.cast(pa.large_string())
    return _frequent(name, pc.if_else(pc.equal(texts, ""), None, texts))


def _quarters(name: str, values: Floats, known: Floats) -> Segments:
    edges = np.quantile(known, [0.25, 0.5, 0.75])
    codes = np.where(np.isfinite(values), np.searchsorted(edges, values, side="left"), len(_QUARTERS))
    return Segments(name, (*_QUARTERS, UNKNOWN), codes.astype(np.int16))


def _frequent(name: str, texts: Any) -> Segments:
    counted = pc.value_counts(texts.drop_null())
    found = sorted(
        zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True),
        key=lambda entry: (-entry[1], entry[0]),
    )
    labels = tuple(value for value, _ in found[:_MOST_VALUES])
    places = pc.index_in(texts, value_set=pa.array(labels, pa.large_string())).fill_null(len(labels))
    codes = places.to_numpy(zero_copy_only=False).astype(np.int16)
    codes[texts.is_null().to_numpy(zero_copy_only=False)] = len(labels) + 1
    return Segments(name, (*labels, OTHER, UNKNOWN), codes)
