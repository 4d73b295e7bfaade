"""Raw ids to rows: a set of distinct ids, and the place of each in it."""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl.data.columns import whole

_SPAN_PER_ID, _LEAST_SPAN = 8, 1 << 20


class IdMap:
    """Distinct ids, each with the row that is its place among them."""

    def __init__(self, ids: Any) -> None:
        """``ids``: an Arrow array of distinct ids in any order; ascending ones are looked up without a detour."""
        self.ids = ids
        self._order = _ascending_order(ids)
        is_number = pa.types.is_integer(ids.type) and len(ids) > 0
        self._numbers = _take(ids, self._order).to_numpy(zero_copy_only=False) if is_number else None
        self._rows = self._by_number()

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Any) -> npt.NDArray[np.int32]:
        """The row of each id, -1 for an id that is null or not in the map."""
        ids = whole(ids)
        if self._numbers is None:
            found = pc.index_in(ids, value_set=self.ids)
            return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32)
        rows = self._rows_of_numbers(ids.fill_null(0).to_numpy(zero_copy_only=False), self._numbers)
        if ids.null_count:
            rows[ids.is_null().to_numpy(zero_copy_only=False)] = -1
        return rows

    def rows_of_numbers(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """``rows`` of whole numbers, of ids that are whole numbers, without the detour by Arrow."""
        if self._numbers is None:
            return np.full(len(numbers), -1, dtype=np.int32)
        return self._rows_of_numbers(numbers, self._numbers)

    def row_of_text(self, text: str) -> int:
        """The row of one text, by bisection, where ``rows`` would hash all ids; -1 where it is not in the map."""
        order = range(len(self.ids)) if self._order is None else self._order
        place = bisect.bisect_left(order, text, key=lambda row: self.ids[int(row)].as_py())
        row = int(order[place]) if place < len(self.ids) else -1
        return row if row >= 0 and self.ids[row].as_py() == text else -1

    def _rows_of_numbers(self, wanted: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        if self._rows is not None:
            first, last = numbers[0], numbers[-1]
            rows: npt.NDArray[np.int32] = self._rows[np.clip(wanted, first, last) - first]
            rows[(wanted < first) | (wanted > last)] = -1
            return rows
        places = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
        found = places if self._order is None else self._order[places]
        return np.where(numbers[places] == wanted, found, -1).astype(np.int32)

    def _by_number(self) -> npt.NDArray[np.int32] | None:
        """The row of every number from the first id to the last, where they lie close enough together."""
        if self._numbers is None:
            return None
        span = int(self._numbers[-1]) - int(self._numbers[0]) + 1
        if span > max(_SPAN_PER_ID * len(self._numbers), _LEAST_SPAN):
            return None
        rows = np.full(span, -1, dtype=np.int32)
        rows[self._numbers - self._numbers[0]] = np.arange(len(self)) if self._order is None else self._order
        return rows


def _ascending_order(ids: Any) -> npt.NDArray[np.int64] | None:
    """The rows in ascending order of their ids; None where that is the order of the rows."""
    if len(ids) < 2 or pc.all(pc.less(ids[:-1], ids[1:])).as_py():
        return None
    return np.asarray(pc.sort_indices(ids).to_numpy(zero_copy_only=False), dtype=np.int64)


def _take(ids: Any, order: npt.NDArray[np.int64] | None) -> Any:
    return ids if order is None else ids.take(pa.array(order))
