"""What a release knows of its items: ids, what an answer shows, columns to filter by, how popular each is."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.config_serving import FilterConfig
from raycl.data.columns import whole
from raycl.data.id_map import IdMap
from raycl.errors import InputError
from raycl.index.selection import Mask, Rows, Selection
from raycl.serving import filters
from raycl.serving.columns import Columns
from raycl.serving.filters import Filter, ItemId

_OWN = ("item", "title", "train_count")
_LIKEST = 32
_MOST_TOLD = 50_000
"""Rows whose displayed columns are kept as Python values, which costs a hundred times less than to make them."""

Shown = tuple[ItemId, str | None, dict[str, Any]]
"""Of an item: id, title and displayed columns."""


class Catalogue:
    """The items of one release, one vocabulary row a row; threads may share it."""

    def __init__(self, table: pa.Table, config: FilterConfig, select: Callable[[Mask], Selection]) -> None:
        """``select``: those of some rows that the index has a vector of."""
        self._table, self._config, self._select = table.combine_chunks(), config, select  # rows are found faster
        self._ids = IdMap(table["item"].combine_chunks())
        self._shown = [name for name in table.column_names if name not in _OWN]
        named = [name for name in ("item", "title") if name in table.column_names]
        self._told_from = {name: whole(self._table[name]) for name in (*named, *self._shown)}
        self.columns = Columns(table, config.columns, config.available, self.rows)
        self.counts: npt.NDArray[np.int64] = table["train_count"].to_numpy().astype(np.int64)
        """Training events of each item, (num_rows,)."""
        self.most = int(self.counts.max(initial=0))
        self.all = select(np.ones(len(self._ids), dtype=np.bool_))
        """Every item that has a vector."""
        self.by_popularity: Rows = self.all.rows[np.argsort(-self.counts[self.all.rows], kind="stable")]
        """These items, the most popular first."""
        self._told: dict[int, Shown] = {}
        self._selections: OrderedDict[str, Selection] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ids)

    def rows(self, ids: Sequence[ItemId]) -> npt.NDArray[np.int32]:
        """Vocabulary rows, -1 for an id that is not in it; an integer may come as text and text as an integer."""
        if not pa.types.is_integer(self._ids.ids.type):
            return np.array([self._ids.row_of_text(str(one)) for one in ids], dtype=np.int32)
        numbers = [_whole(one) for one in ids]
        given = np.array([0 if number is None else number for number in numbers], dtype=np.int64)
        rows = self._ids.rows_of_numbers(given)
        if None in numbers:
            rows[[number is None for number in numbers]] = -1
        return rows

    def ids(self, rows: Rows) -> list[ItemId]:
        """The ids of these rows."""
        return list(self._table["item"].take(pa.array(rows)).to_pylist())

    def shown(self, rows: Rows) -> list[Shown]:
        """Id, title and displayed columns of each row, which is nobody's to change; the last ones are remembered."""
        if len(self._told) > _MOST_TOLD:
            self._told = {}
        asked, told = rows.tolist(), self._told  # which other threads may fill, or put another one in the place of
        if new := [row for row in asked if row not in told]:
            told.update(self._read(new))
        return [told[row] for row in asked]

    def _read(self, rows: list[int]) -> dict[int, Shown]:
        wanted = pa.array(rows, pa.int64())
        values = {name: column.take(wanted).to_pylist() for name, column in self._told_from.items()}
        titles = values.get("title", [None] * len(rows))
        return {
            row: (values["item"][at], titles[at], {name: values[name][at] for name in self._shown})
            for at, row in enumerate(rows)
        }

    def selection(self, node: Filter) -> Selection:
        """The items that pass; the outcomes of the last filters are remembered.

        InputError for a filter that is too large, or that a column cannot answer.
        """
        size = filters.size(node)
        if size > self._config.max_size:
            raise InputError(
                f"filter: {size} nodes and values are above serving.filters.max_size={self._config.max_size}: ask for"
                f" fewer"
            )
        key = node.model_dump_json()  # objects would not do: 1, 1.0 and true are equal
        with self._lock:
            if key in self._selections:
                self._selections.move_to_end(key)
                return self._selections[key]
        found = self._select(self.columns.keep(node))
        with self._lock:
            self._selections[key] = found
            while len(self._selections) > self._config.num_cached:
                self._selections.popitem(last=False)
        return found

    def likest(self, features: Mapping[str, Any]) -> Rows:
        """Items that are most alike to one of these values by column, at most 32; none where nothing is alike.

        All of them are equally alike; of more than these the most popular ones.
        """
        alike = self.columns.likest(features)[self.by_popularity]
        best = alike.max(initial=0.0)
        return self.by_popularity[alike >= best][:_LIKEST] if best > 0.0 else self.by_popularity[:0]


def _whole(value: ItemId) -> int | None:
    try:
        number = int(value)
    except ValueError:
        return None
    return number if -(2**63) <= number < 2**63 else None
