"""Items and their counts, and which of them are new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from raycl.data import clean
from raycl.data.columns import dense, whole
from raycl.data.id_map import IdMap

_ROWS_AT_ONCE = 1_000_000
"""Rows of counts that wait to be added up, or as many as the sum has where those are more."""


def count_ids(ids: Any) -> pa.Table:
    """A table of distinct ``item`` and its ``count``."""
    if (near := dense(ids)) is not None:
        numbers, least = near
        counts = np.bincount(numbers)
        found = np.flatnonzero(counts)
        return pa.table({"item": found + least, "count": counts[found]})
    counted = pc.value_counts(ids)
    return pa.table({"item": counted.field("values"), "count": counted.field("counts")})


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


def extend(known: pa.Table, wanted: Any, counted: pa.Table) -> pa.Table:
    """The items of a vocabulary that goes on from an earlier one: what it ``known`` (``item``, ``row``), then the new.

    ``wanted`` are the ids that may be retrieved, distinct and in any order; ``counted`` is what ``merge_counts``
    returns. Of each ``item``: its ``row``, null for a new one (these are in ascending order); its ``log_count``; and
    whether it is ``retired``, known and no longer wanted.
    """
    old = whole(known["item"])
    new = wanted.filter(pc.invert(pc.is_in(wanted, value_set=old)))
    items = pa.concat_arrays([old, new.take(pc.sort_indices(new))])
    places = IdMap(whole(counted["item"])).rows(items)
    counts = np.append(counted["count"].to_numpy(), 0)[places]
    return pa.table(
        {
            "item": items,
            "row": pa.concat_arrays([whole(known["row"]).cast(pa.int32()), pa.nulls(len(new), pa.int32())]),
            "log_count": counts.astype(np.int64),
            "retired": pc.invert(pc.is_in(items, value_set=wanted)),
        }
    )


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
