"""Which rows each segment has."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.evaluation import segments
from raycl.evaluation.segments import Segments


def labels(found: Segments) -> list[str]:
    return [found.labels[code] for code in found.codes]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.sampled_from([(0.5, 0.8), (0.0, 1.0), (0.3, 0.3)]))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_head_has_its_share_of_the_events_and_no_item_too_many(
    counts: list[int], cuts: tuple[float, float]
) -> None:
    found = segments.popularity(np.array(counts, dtype=np.int64), cuts)
    order = sorted(range(len(counts)), key=lambda row: (-counts[row], row))
    total, reached = max(sum(counts), 1), 0
    for row in order:
        share = reached / total
        expected = "head" if share < cuts[0] else "middle" if share < cuts[1] else "tail"
        assert labels(found)[row] == (expected if counts[row] else "tail")
        reached += counts[row]


def test_what_has_few_events_is_new() -> None:
    assert labels(segments.age(np.array([0, 4, 5, 9]), 5)) == ["new", "new", "old", "old"]


def test_a_column_of_words_has_its_most_frequent_values_and_the_rest_together() -> None:
    words = [f"word {number:02d}" for number in range(25) for _ in range(1 + (number < 20))]
    found = segments.of_column("word", pa.array([*words, None, ""]))
    assert labels(found)[-2:] == ["unknown", "unknown"]
    assert labels(found)[: 2 * 20] == words[:40]
    assert labels(found)[40:45] == ["other"] * 5


def test_a_column_of_many_numbers_has_quarters() -> None:
    numbers = pa.array([float(number) for number in range(100)] + [None, float("nan")])
    found = labels(segments.of_column("price", numbers))
    assert [found.count(label) for label in segments.of_column("price", numbers).labels] == [25, 25, 25, 25, 2]
    assert (found[0], found[99], found[100]) == ("first quarter", "last quarter", "unknown")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, 2, 1, None]), ["1", "2", "1", "unknown"]),
        (pa.array([True, False, None]), ["true", "false", "unknown"]),
        (pa.array([0.5, float("nan")]), ["0.5", "unknown"]),
    ],
)
def test_a_column_of_few_values_has_them(column: pa.Array, expected: list[str]) -> None:
    assert labels(segments.of_column("column", column)) == expected


def test_rows_that_are_not_in_the_table_are_unknown() -> None:
    found = segments.of_column("country", pa.array(["pe", "ee"])).take(np.array([1, -1, 0]), missing=True)
    assert labels(found) == ["ee", "unknown", "pe"]
    aged = segments.age(np.array([9]), 5).take(np.array([0, -1]), missing=True)
    assert labels(aged) == ["old", "unknown"]
