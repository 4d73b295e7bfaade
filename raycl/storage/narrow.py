"""Whole numbers in as few bits as their range needs: as small as a general compression makes them, and sooner done.

A column of int64 becomes its distances from its least value, of 8, 16 or 32 bits, where they fit ("frame of
reference"); the least value stands beside it in the schema. Other columns stay as they are.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_LEAST = b"raycl.least"
_WIDTHS = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32()}


def narrowed(table: pa.Table) -> pa.Table:
    """The table with what ``widened`` needs to give it back."""
    for position, field in enumerate(table.schema):
        if pa.types.is_int64(field.type) and (found := _narrow(table[position])) is not None:
            column, least = found
            metadata = {**(field.metadata or {}), _LEAST: str(least).encode()}
            table = table.set_column(position, field.with_type(column.type).with_metadata(metadata), column)
    return table


def widened(table: pa.Table) -> pa.Table:
    """The table that ``narrowed`` was given, or some rows of it; a table that it did not make is returned as it is."""
    for position, field in enumerate(table.schema):
        metadata = dict(field.metadata or {})
        if (least := metadata.pop(_LEAST, None)) is not None:
            column = pc.add(table[position].cast(pa.int64()), pa.scalar(int(least), pa.int64()))
            table = table.set_column(position, field.with_type(pa.int64()).with_metadata(metadata or None), column)
    return table


def _narrow(column: Any) -> tuple[Any, int] | None:
    bounds = pc.min_max(column).as_py()
    if bounds["min"] is None:
        return None
    span = bounds["max"] - bounds["min"]
    kind = next((kind for bits, kind in _WIDTHS.items() if span < 1 << bits), None)
    if kind is None:
        return None
    return pc.subtract(column, pa.scalar(bounds["min"], pa.int64())).cast(kind), bounds["min"]
