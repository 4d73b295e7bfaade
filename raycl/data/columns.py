"""A column of a table as one array, however many chunks it came in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_DENSE = 4


def whole(column: Any) -> Any:
    """An Arrow array of all the column's values, in order; an array is returned as it is."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def dense(column: Any) -> tuple[npt.NDArray[np.int64], int] | None:
    """Numbers as distances from the least one, and that; None unless they lie so near that an array may stand for them.

    An array with a place for each number of the range then takes the part of a hash table, at a tenth of its cost.
    """
    column = whole(column)
    if not pa.types.is_int64(column.type) or column.null_count or not len(column):
        return None
    numbers = column.to_numpy()
    least = int(numbers.min())
    return (numbers - least, least) if int(numbers.max()) - least < _DENSE * len(numbers) else None
