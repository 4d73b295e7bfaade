"""A column of a table as one array, however many chunks it came in."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def whole(column: Any) -> Any:
    """An Arrow array of all the column's values, in order; an array is returned as it is."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
