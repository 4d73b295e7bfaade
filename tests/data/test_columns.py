"""A column as one array, whatever its chunks, and numbers near one another as places of another."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from raycl.data.columns import dense, whole


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


def test_near_numbers_are_distances_from_the_least() -> None:
    found = dense(pa.chunked_array([[-3, 5], [-1]]))
    assert found is not None
    assert (found[0].tolist(), found[1]) == ([0, 8, 2], -3)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0, 8]),  # an array of nine places for two numbers
        pa.array([-(2**63), 2**63 - 1]),
        pa.array([1, None]),
        pa.array([], pa.int64()),
        pa.array(["1", "2"]),
        pa.array([1.0, 2.0]),
    ],
)
def test_what_is_no_near_number_is_left_to_a_hash_table(column: pa.Array) -> None:
    assert dense(column) is None
