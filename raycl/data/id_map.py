"""Raw ids to rows: a sorted set of ids, and the place of each in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl.data.columns import whole

_SPAN_PER_ID, _LEAST_SPAN = 8, 1 << 20


class IdMap:
    """A set of distinct ids, each with the row that is its place in ascending order."""

    def __init__(self, ids: Any) -> None:
        """``ids``: an Arrow array, ascending and distinct."""
        self.ids = ids
        self._numbers = ids.to_numpy(zero_copy_only=False) if pa.types.is_integer(ids.type) else None
        self._rows = self._by_number()

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Any) -> npt.NDArray[np.int32]:
        """The row of each id, -1 for an id that is null or not in the map."""
        ids = whole(ids)
        if self._numbers is None or not len(self._numbers):
            found = pc.index_in(ids, value_set=self.ids)
            return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32)
        rows = self._rows_of_numbers(ids.fill_null(0).to_numpy(zero_copy_only=False))
        if ids.null_count:
            rows[ids.is_null().to_numpy(zero_copy_only=False)] = -1
        return rows

    def _rows_of_numbers(self, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        assert self._numbers is not None
        if self._rows is not None:
            first, last = self._numbers[0], self._numbers[-1]
            rows: npt.NDArray[np.int32] = self._rows[np.clip(wanted, first, last) - first]
            rows[(wanted < first) | (wanted > last)] = -1
            return rows
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
