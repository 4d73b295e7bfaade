"""What a filter keeps, against a reading of every row in plain Python, and what the search then finds."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from raycl.errors import InputError
from raycl.index.selective import SelectiveIndex
from raycl.serving import filters
from raycl.serving.columns import Columns
from raycl.serving.filters import Filter
from tests.index.builders import sharded, unit_vectors

NUM_ROWS = 60
NUM_FILTERS = 10_000
parsed = TypeAdapter[Filter](Filter).validate_python


def rows_of(ids: Any) -> npt.NDArray[np.int32]:
    """Ids are 100 and up, in the order of the rows."""
    return np.array(
        [int(one) - 100 if str(one).isdigit() and 0 <= int(one) - 100 < NUM_ROWS else -1 for one in ids], np.int32
    )


def table() -> pa.Table:
    """Every kind of column, with nulls."""
    rows = range(NUM_ROWS)
    return pa.table(
        {
            "item": [100 + row for row in rows],
            "kind": [None if row % 11 == 0 else ("tea", "rope", "lamp", "")[row % 4] for row in rows],
            "colour": pa.array([("red", "blue")[row % 2] for row in rows]).dictionary_encode(),
            "tags": [None if row % 13 == 0 else ["a", "b", "c"][: row % 4] for row in rows],
            "price": [None if row % 7 == 0 else (float("nan") if row == 8 else 1.5 * row) for row in rows],
            "stock": [None if row % 9 == 0 else row % 5 - 1 for row in rows],
            "large": [2**62 + row for row in rows],
            "new": [None if row % 10 == 0 else row % 3 == 0 for row in rows],
            "day": [None if row % 8 == 0 else dt.date(2026, 1, 1) + dt.timedelta(days=row) for row in rows],
            "blob": [b"x" for _ in rows],
        }
    )


def naive(node: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether one row holds, by the words of the request."""
    match node["op"]:
        case "and":
            return all(naive(one, row) for one in node["of"])
        case "or":
            return any(naive(one, row) for one in node["of"])
        case "not":
            return not naive(node["of"], row)
        case "available":
            return row["stock"] is not None and row["stock"] > 0
        case "items":
            return row["item"] in [int(one) for one in node["ids"]]
    value = row[node["column"]]
    if value is None or value != value:
        return False
    if isinstance(value, dt.date):
        value = value.isoformat()
    if node["op"] == "range":
        return bool(
            (node.get("min") is None or value >= node["min"]) and (node.get("max") is None or value <= node["max"])
        )
    wanted = [node["value"]] if node["op"] == "eq" else node["values"]
    return any(one in value for one in wanted) if isinstance(value, list) else value in wanted


VALUES: dict[str, list[Any]] = {
    "kind": ["tea", "rope", "lamp", "", "absent"],
    "colour": ["red", "blue", "none"],
    "tags": ["a", "b", "c", "d"],
    "price": [0, 1.5, 30, 33.0, 88.5, -1, 7.2],
    "stock": [-1, 0, 1, 2, 3, 2.5],
    "large": [2**62, 2**62 + 1, 2**62 + 59, 2**70, -(2**70), 0],
    "new": [True, False],
    "day": ["2026-01-05", "2026-02-01", "2025-12-31", "2027-01-01"],
}
ORDERED = ("price", "stock", "large", "day")


def drawn(generator: np.random.Generator, depth: int = 3) -> dict[str, Any]:
    """A random expression."""
    ops = ["eq", "in", "range", "available", "items"] + (["and", "or", "not"] * 2 if depth else [])
    op = str(generator.choice(ops))
    if op in ("and", "or"):
        return {"op": op, "of": [drawn(generator, depth - 1) for _ in range(generator.integers(0, 4))]}
    if op == "not":
        return {"op": op, "of": drawn(generator, depth - 1)}
    if op == "available":
        return {"op": op}
    if op == "items":
        return {"op": op, "ids": [int(one) for one in generator.integers(95, 105 + NUM_ROWS, generator.integers(0, 9))]}
    column = str(generator.choice(ORDERED if op == "range" else list(VALUES)))
    choices = VALUES[column]
    values = [choices[place] for place in generator.integers(0, len(choices), 3)]
    if op == "eq":
        return {"op": op, "column": column, "value": values[0]}
    if op == "in":
        return {"op": op, "column": column, "values": values[: generator.integers(0, 4)]}
    bounds = {"min": values[0], "max": values[1]}
    return {"op": op, "column": column, **{name: bounds[name] for name in bounds if generator.random() < 0.8}}


@pytest.mark.parametrize(("num_lists", "direct_up_to"), [(0, 10), (6, 10)])
def test_ten_thousand_random_filters_find_what_a_sort_of_the_rows_that_hold_finds(
    num_lists: int, direct_up_to: int
) -> None:
    """Half of them in flat shards and half in inverted lists; few items are scored directly, more by FAISS."""
    generator = np.random.default_rng(num_lists)
    vectors = unit_vectors(NUM_ROWS, 8)
    shards = sharded(vectors, np.arange(NUM_ROWS) % 3, 3, num_lists, max(num_lists, 1))
    index = SelectiveIndex(shards, NUM_ROWS, direct_up_to)
    columns, rows = Columns(table(), None, "stock", rows_of), table().to_pylist()
    queries = unit_vectors(NUM_FILTERS // 2, 8, 5)
    products = queries @ vectors.T
    counts = []
    for query in range(NUM_FILTERS // 2):
        asked = drawn(generator)
        kept = [place for place, row in enumerate(rows) if naive(asked, row)]
        among = index.selection(columns.keep(parsed(asked)))
        assert among.rows.tolist() == kept, asked
        ids, _ = index.search(queries[query : query + 1], 10, among)
        expected = sorted(kept, key=lambda row: -products[query, row])[:10]
        assert ids[0, : len(expected)].tolist() == expected, asked
        assert (ids[0, len(expected) :] == -1).all()
        counts.append(len(kept))
    assert sum(0 < count <= direct_up_to for count in counts) > 500
    assert sum(count > direct_up_to for count in counts) > 500


def test_columns_of_other_types_are_none_that_can_be_filtered_by() -> None:
    columns = Columns(table(), None, None, rows_of)
    assert sorted(columns.by_name) == sorted(VALUES)
    assert sorted(Columns(table(), ["kind", "blob", "absent"], None, rows_of).by_name) == ["kind"]


def test_decimals_and_moments_are_numbers() -> None:
    plain = pa.table(
        {
            "fee": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2.50")]),
            "at": pa.array([dt.datetime(2026, 1, day, tzinfo=dt.UTC) for day in (1, 2, 3)]),
        }
    )
    columns = Columns(plain, None, None, rows_of)
    assert columns.keep(parsed({"op": "range", "column": "fee", "min": 2})).tolist() == [False, False, True]
    wanted = {"op": "range", "column": "at", "max": "2026-01-02T00:00:00Z"}
    assert columns.keep(parsed(wanted)).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"op": "eq", "column": "size", "value": 1}, "op=eq: column='size' cannot be filtered by; these can: kind, "),
        ({"op": "eq", "column": "item", "value": 1}, "column='item' cannot be filtered by"),
        ({"op": "eq", "column": "kind", "value": 1}, "op=eq column=kind: what is given is not text"),
        ({"op": "in", "column": "price", "values": [1, "2"]}, "op=in column=price: what is given is not a number"),
        ({"op": "eq", "column": "stock", "value": True}, "column=stock: what is given is not a number"),
        ({"op": "eq", "column": "new", "value": 1}, "column=new: what is given is not true or false"),
        (
            {"op": "range", "column": "kind", "min": "a"},
            "is a bound, and the column is text: use eq or in",
        ),
        ({"op": "range", "column": "new", "min": True}, "is a bound, and the column is true or false"),
        ({"op": "range", "column": "day", "min": "soon"}, "column=day: what is given is no date or time in ISO text"),
        ({"op": "range", "column": "day", "min": 3}, "is no date or time in ISO text"),
        ({"op": "not", "of": {"op": "available"}}, "op=available: this service knows no availability"),
    ],
)
def test_what_a_column_cannot_answer_is_told_with_the_remedy(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as refused:
        Columns(table(), None, None, rows_of).keep(parsed(asked))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "asked",
    [
        {"op": "equals", "column": "kind", "value": 1},
        {"op": "eq", "column": "kind"},
        {"op": "eq", "column": "kind", "value": None},
        {"op": "eq", "column": "price", "value": float("nan")},
        {"op": "and", "of": {"op": "available"}},
        {"op": "available", "column": "stock"},
        {"column": "kind", "value": 1},
        "kind = tea",
    ],
)
def test_what_is_no_expression_is_refused(asked: Any) -> None:
    with pytest.raises(ValidationError):
        parsed(asked)


def test_an_expression_within_a_thousand_others_is_refused() -> None:
    asked: dict[str, Any] = {"op": "available"}
    for _ in range(1_000):
        asked = {"op": "not", "of": asked}
    with pytest.raises(ValidationError):
        parsed(asked)


def test_the_size_of_an_expression_counts_its_values() -> None:
    wanted = {"op": "in", "column": "kind", "values": ["a", "b"]}
    assert filters.size(parsed(wanted)) == 3
    assert filters.size(parsed({"op": "and", "of": [wanted, {"op": "not", "of": {"op": "items", "ids": [1]}}]})) == 7
