"""Raw ids to dense rows, and what each row stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from raycl.data import clean
from raycl.data.columns import whole

_SPAN_PER_ID, _LEAST_SPAN = 8, 1 << 20
_ROWS_AT_ONCE = 1_000_000
"""Rows of counts that wait to be added up, or as many as the sum has where those are more."""


class IdMap:
    """A set of distinct ids, each with the row that is its place in ascending order."""

    def __init__(self, ids: Any) -> None:
        """``ids``: an Arrow array, ascending and distinct, as ``sorted_ids`` returns it."""
        self.ids = ids
        self._numbers = ids.to_numpy(zero_copy_only=False) if pa.types.is_integer(ids.type) else None
        self._rows = self._by_number()

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Any) -> npt.NDArray[np.int32]:
        """The row of each id, -1 for an id that is null or not in the map."""
        ids = whole(ids)
        if self._numbers is None or ids.null_count or not len(self._numbers):
            found = pc.index_in(ids, value_set=self.ids)
            return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32)
        wanted = ids.to_numpy(zero_copy_only=False)
        if self._rows is not None:
            first, last = self._numbers[0], self._numbers[-1]
            rows = self._rows[np.clip(wanted, first, last) - first]
            return np.where((wanted < first) | (wanted > last), np.int32(-1), rows)
        places = np.minimum(np.searchsorted(self._numbers, wanted), len(self._numbers) - 1)
        return np.where(self._numbers[places] == wanted, places, -1).astype(np.int32)

    def _by_number(self) -> npt.NDArray[np.int32] | None:
        """The row of every number from the first id to the last, where they lie close enough together."""
        if self._numbers is None or not len(self._numbers):
            return None
        span = int(self._numbers[-1]) - int(self._numbers[0]) + 1
        if span > max(_SPAN_PER_ID * len(self._numbers), _LEAST_SPAN):
            return None
        rows = np.full(span, -1, dtype=np.int32)
        rows[self._numbers - self._numbers[0]] = np.arange(len(self._numbers), dtype=np.int32)
        return rows


def sorted_ids(ids: Any) -> Any:
    """Distinct ids in ascending order, nulls left out, as one Arrow array."""
    distinct = pc.unique(ids).drop_null()
    return distinct.take(pc.sort_indices(distinct))


def count_ids(ids: Any) -> pa.Table:
    """A table of distinct ``item`` and its ``count``."""
    counts = pc.value_counts(ids)
    return pa.table({"item": counts.field("values"), "count": counts.field("counts")})


def merge_counts(parts: Iterable[pa.Table]) -> pa.Table:
    """Sum tables of ``item`` and ``count`` by item, in ascending order of item.

    Parts are folded into the sum as they come, so memory holds a few times the sum, however many parts there are.
    """
    held: list[pa.Table] = []
    num_rows = num_summed = 0
    for part in parts:
        held.append(part)
        num_rows += part.num_rows
        if num_rows >= max(2 * num_summed, _ROWS_AT_ONCE):
            held = [_sum_counts(held)]
            num_rows = num_summed = held[0].num_rows
    return _sum_counts(held)


def sum_by_row(parts: Iterable[pa.Table], columns: Sequence[str], num_items: int) -> dict[str, npt.NDArray[np.int64]]:
    """Sum ``columns`` of tables whose ``item`` are distinct vocabulary rows; each (num_items,), 0 for absent items."""
    totals = {name: np.zeros(num_items, dtype=np.int64) for name in columns}
    for part in parts:
        rows = part["item"].to_numpy()
        for name, total in totals.items():
            total[rows] += part[name].to_numpy()
    return totals


def _sum_counts(parts: Sequence[pa.Table]) -> pa.Table:
    frame = pl.from_arrow(pa.concat_tables(parts))
    assert isinstance(frame, pl.DataFrame)
    return frame.group_by("item").agg(pl.col("count").sum()).sort("item").to_arrow(compat_level=pl.CompatLevel.oldest())


def first_of_each(table: pa.Table, id_column: str, wanted: pa.DataType) -> tuple[pa.Table, int, int]:
    """Rows of distinct ids in ascending order (the first row of an id wins), rows without id, and repeated rows."""
    ids = clean.ids(table, id_column, wanted)
    present = pa.table({"id": ids, "row": pa.array(np.arange(table.num_rows))}).filter(pc.is_valid(ids))
    firsts = present.group_by("id", use_threads=False).aggregate([("row", "min")]).sort_by("id")
    chosen = table.take(firsts["row_min"])
    position = chosen.schema.get_field_index(id_column)
    chosen = chosen.set_column(position, id_column, firsts["id"])
    return chosen, table.num_rows - present.num_rows, present.num_rows - chosen.num_rows
