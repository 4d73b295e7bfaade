"""Encoded tables as tensors: padding, the unknown row, and the cut."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.config import Feature
from raycl.data.features import Encoders
from raycl.model import inputs

FEATURES = (
    Feature(column="tags", kind="multi"),
    Feature(column="price", kind="numeric"),
    Feature(column="kind"),
    Feature(column="cover", kind="vector", length=2),
)
TABLE = pa.table(
    {
        "tags": [["a"], ["b", "a", "c"], [], None],
        "price": [1.0, 3.0, None, 3.0],
        "kind": ["x", None, "y", "x"],
        "cover": [None, [1.0, 2.0], None, [3.0, 4.0]],
    }
)
FITTED = Encoders.fit(FEATURES, TABLE)


def lists(rows: list[list[int]]) -> pa.Table:
    return pa.table({"tags": pa.array(rows, pa.list_(pa.int32()))})


def bag_of(table: Any, num_rows: int, *, unknown_row: bool = False) -> list[list[int]]:
    fitted = Encoders.fit(FEATURES[:1], TABLE)
    (tokens,) = inputs.from_table(table, fitted, num_rows, unknown_row=unknown_row).tokens
    return [[int(token) for token in row] for row in tokens]


def test_rows_are_padded_to_the_longest_with_the_token_of_nothing() -> None:
    rows = inputs.from_table(FITTED.encode(TABLE), FITTED, 4)
    tags, kinds = rows.tokens
    assert tags.tolist() == [[2, 0, 0], [3, 2, 4], [1, 0, 0], [1, 0, 0]]
    assert kinds.tolist() == [[2], [1], [3], [2]]


def test_an_unknown_number_or_vector_is_not_a_number() -> None:
    rows = inputs.from_table(FITTED.encode(TABLE), FITTED, 4)
    (covers,) = rows.vectors
    assert (rows.numbers.dtype, covers.dtype) == (torch.float32, torch.float32)
    prices = [math.nan if price is None else price for price in FITTED.encode(TABLE)["price"].to_pylist()]
    assert rows.numbers[:, 0].tolist() == pytest.approx(prices, nan_ok=True)
    assert covers.tolist() == pytest.approx(np.array([[math.nan] * 2, [1, 2], [math.nan] * 2, [3, 4]]), nan_ok=True)


def test_a_slice_of_vectors_is_its_own_rows() -> None:
    encoded = pa.concat_tables([FITTED.encode(TABLE).slice(2), FITTED.encode(TABLE).slice(1, 1)])
    (covers,) = inputs.from_table(encoded, FITTED, 3).vectors
    assert covers[1:].tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert covers[0].isnan().all()


def test_the_row_of_unknowns_comes_last_and_is_reached_by_minus_one() -> None:
    rows = inputs.from_table(FITTED.encode(TABLE), FITTED, 4, unknown_row=True)
    assert len(rows) == 5
    taken = rows.take(torch.tensor([-1, 1]))
    assert [token.tolist() for token in taken.tokens] == [[[1, 0, 0], [3, 2, 4]], [[1], [1]]]
    assert taken.numbers[0].isnan().all()
    assert taken.vectors[0].isnan().tolist() == [[True, True], [False, False]]


def test_without_features_rows_keep_their_number() -> None:
    for unknown_row in (False, True):
        rows = inputs.from_table(None, Encoders(), 3, unknown_row=unknown_row)
        assert (rows.tokens, rows.numbers.shape) == ((), (3 + unknown_row, 0))
        assert len(rows.take(torch.tensor([0, -1]))) == 2


def test_a_table_without_tokens_is_one_column_of_nothing() -> None:
    assert bag_of(lists([[], []]), 2) == [[0], [0]]
    assert bag_of(lists([]), 0, unknown_row=True) == [[1]]


def test_chunks_and_slices_are_their_own_rows() -> None:
    whole = lists([[9, 9], [1, 2], [3], [4]])
    assert bag_of(whole.slice(1, 2), 2) == [[1, 2], [3, 0]]
    assert bag_of(pa.concat_tables([whole.slice(3), whole.slice(1, 2)]), 3) == [[4, 0], [1, 2], [3, 0]]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.lists(st.integers(1, 9), max_size=40), max_size=8))
def test_padding_is_that_of_a_loop(rows: list[list[int]]) -> None:
    width = max([1, *map(len, rows)])
    expected = [row + [0] * (width - len(row)) for row in rows]
    assert bag_of(lists(rows), len(rows)) == expected


def test_rows_on_a_device_are_the_same_rows() -> None:
    rows = inputs.from_table(FITTED.encode(TABLE), FITTED, 4)
    moved = rows.to(torch.device("cpu"))
    assert all(torch.equal(one, other) for one, other in zip(rows.tokens, moved.tokens, strict=True))
    assert torch.equal(rows.numbers.nan_to_num(9.0), moved.numbers.nan_to_num(9.0))
    assert torch.equal(rows.vectors[0].nan_to_num(9.0), moved.vectors[0].nan_to_num(9.0))
