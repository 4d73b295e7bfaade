"""A column as one array, whatever its chunks."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from raycl.data.columns import whole


@pytest.mark.parametrize(
    "chunks", [[], [[]], [["a", None]], [["a"], [], ["b", "a"]], [["a"], ["b"], ["c"], [None]], [[None], [None]]]
)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_chunks_are_one_array_of_the_same_values(chunks: list[list[str | None]], kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(chunk, pa.string()).cast(kind) for chunk in chunks], kind)
    found = whole(column)
    assert isinstance(found, pa.Array)
    assert (found.type, found.to_pylist()) == (kind, column.to_pylist())


@pytest.mark.parametrize("column", [pa.array([1, 2]), pa.array([[1], None, [2, 3]]).slice(1)])
def test_an_array_is_returned_as_it_is(column: Any) -> None:
    assert whole(column) is column
