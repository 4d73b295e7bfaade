"""Counts against dictionaries."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.data import vocabulary
from raycl.data.vocabulary import count_ids, first_of_each, merge_counts, sum_by_row
from tests.data.builders import ids, many_cases, sorted_ids


@many_cases
@given(st.lists(st.dictionaries(st.integers(0, 5), st.tuples(st.integers(0, 9), st.integers(0, 9))), max_size=4))
def test_sums_by_row_are_those_of_a_loop(parts: list[dict[int, tuple[int, int]]]) -> None:
    expected = np.zeros((2, 6), dtype=np.int64)
    for part in parts:
        for row, (first, second) in part.items():
            expected[0, row] += first
            expected[1, row] += second
    written = (
        pa.table(
            {
                "item": pa.array(part, pa.int64()),
                "first": pa.array([one for one, _ in part.values()], pa.int64()),
                "second": pa.array([other for _, other in part.values()], pa.int64()),
            }
        )
        for part in parts
    )
    found = sum_by_row(written, ["first", "second"], 6)
    assert {name: total.tolist() for name, total in found.items()} == {
        "first": expected[0].tolist(),
        "second": expected[1].tolist(),
    }


@many_cases
@given(st.lists(st.lists(st.integers(-3, 3), max_size=8), min_size=1, max_size=5))
def test_counts_of_parts_add_up_to_the_counts_of_all(parts: list[list[int]]) -> None:
    merged = merge_counts(count_ids(pa.array(part, pa.int64())) for part in parts)
    expected = Counter(one for part in parts for one in part)
    assert [(row["item"], row["count"]) for row in merged.to_pylist()] == sorted(expected.items())
    assert merged.column_names == ["item", "count"]


@pytest.mark.parametrize("rows_at_once", [1, 50, 1_000_000])
def test_however_many_parts_are_merged_few_are_held(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr(vocabulary, "_ROWS_AT_ONCE", rows_at_once)
    generator, held, most = np.random.default_rng(0), [], 0
    expected: Counter[int] = Counter()

    def parts() -> Iterator[pa.Table]:
        nonlocal most
        for _ in range(60):
            raw = generator.integers(0, 100, 30)
            expected.update(raw.tolist())
            part = count_ids(pa.array(raw))
            held.append(weakref.ref(part))
            most = max(most, sum(one() is not None for one in held))
            yield part

    merged = merge_counts(parts())
    assert {row["item"]: row["count"] for row in merged.to_pylist()} == expected
    assert merged["item"].to_pylist() == sorted(expected)
    assert most <= (60 if rows_at_once > 2_000 else 12)


def test_counts_of_strings_are_in_the_order_of_an_id_map() -> None:
    parts = [count_ids(ids(["b", "Z"])), count_ids(pa.chunked_array([["b"], ["é"]], pa.large_string()))]
    merged = merge_counts(parts)
    assert merged["item"].to_pylist() == sorted_ids(merged["item"]).to_pylist() == ["Z", "b", "é"]
    assert merged["count"].to_pylist() == [1, 2, 1]


ROWS = st.lists(st.tuples(st.none() | st.integers(-2, 4), st.integers()), max_size=15)


@many_cases
@given(ROWS)
def test_the_first_row_of_an_id_wins(rows: list[tuple[int | None, int]]) -> None:
    table = pa.table({"x": [str(mark) for _, mark in rows], "id": pa.array([one for one, _ in rows], pa.int32())})
    expected: dict[int, str] = {}
    for one, mark in rows:
        if one is not None:
            expected.setdefault(one, str(mark))
    missing = sum(one is None for one, _ in rows)
    chosen, without_id, repeated = first_of_each(table, "id", pa.int64())
    assert chosen.column_names == ["x", "id"]
    assert chosen["id"].type == pa.int64()
    assert dict(zip(chosen["id"].to_pylist(), chosen["x"].to_pylist(), strict=True)) == expected
    assert chosen["id"].to_pylist() == sorted(expected)
    assert (without_id, repeated) == (missing, len(rows) - missing - len(expected))


def test_what_is_no_id_in_a_log_is_none_in_a_catalogue() -> None:
    floats, _, _ = first_of_each(pa.table({"id": [2.0, float("nan"), 0.5, 1.0]}), "id", pa.int64())
    texts, without_id, _ = first_of_each(pa.table({"id": ["b", "", "a"]}), "id", pa.large_string())
    assert (floats["id"].to_pylist(), texts["id"].to_pylist(), without_id) == ([1, 2], ["a", "b"], 1)
