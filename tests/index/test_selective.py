"""A search among some items is a sort of their scores, however few or many they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.index.search import Depth, ShardedIndex
from raycl.index.selective import SelectiveIndex, top
from tests.index.builders import sharded, unit_vectors


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("num_lists", [0, 5])
@pytest.mark.parametrize("direct_up_to", [0, 30, 1_000])
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_a_search_among_a_selection_is_a_sort_of_its_scores(
    num_shards: int, num_lists: int, direct_up_to: int, seed: int, share: float
) -> None:
    """Whether few items are scored one by one, or FAISS passes over the others."""
    vectors, queries = unit_vectors(80, 6, seed), unit_vectors(4, 6, seed + 1)
    generator = np.random.default_rng(seed)
    parts = sharded(vectors, generator.integers(0, num_shards, 80), num_shards, num_lists, max(num_lists, 1))
    index = SelectiveIndex(parts, 90, direct_up_to)
    among = index.selection(generator.random(90) < share)
    wanted = generator.integers(1, 40, 4)
    ids, scores = index.search(queries, wanted, among)
    products = queries @ vectors.T
    for query, k in enumerate(wanted):
        rows = sorted((row for row in among.rows), key=lambda row: -products[query, row])[:k]
        assert [one for one in ids[query] if one >= 0] == rows
        assert scores[query, : len(rows)] == pytest.approx(products[query, rows], abs=1e-5)
        assert np.isneginf(scores[query, len(rows) :]).all()


@pytest.mark.parametrize("num_lists", [0, 5])
def test_lists_are_probed_until_the_answer_is_full(num_lists: int) -> None:
    """From one list on; as many items come as there are."""
    vectors = unit_vectors(200, 6)
    index = SelectiveIndex(sharded(vectors, np.arange(200) % 2, 2, num_lists, 1), 200, direct_up_to=0)
    kept = np.arange(200) % 10 == 3
    ids, _ = index.search(unit_vectors(3, 6, 1), 30, index.selection(kept))
    assert [sorted(row[row >= 0]) for row in ids] == [np.flatnonzero(kept).tolist()] * 3


@pytest.mark.parametrize("num_lists", [0, 5])
def test_vectors_are_those_that_were_indexed(num_lists: int) -> None:
    vectors = unit_vectors(50, 6)
    index = SelectiveIndex(sharded(vectors, np.arange(50) % 3, 3, num_lists, 1), 55)
    rows = np.array([7, 7, 49, 0, 12])
    np.testing.assert_array_equal(index.vectors(rows), vectors[rows])
    assert index.vectors(rows[:0]).shape == (0, 6)
    assert index.present.tolist() == [True] * 50 + [False] * 5


def test_a_selection_holds_no_row_without_a_vector() -> None:
    index = SelectiveIndex(sharded(unit_vectors(50, 6), np.arange(50) % 3, 3, 0, 1), 55)
    assert index.selection(np.ones(55, dtype=np.bool_)).count == 50


@given(st.lists(st.integers(-3, 3), max_size=20), st.integers(0, 25))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_top_are_the_first_of_a_stable_sort(scores: list[int], k: int) -> None:
    found = top(np.array(scores, dtype=np.float32), k)
    assert found.tolist() == sorted(range(len(scores)), key=lambda place: -scores[place])[:k]


def test_lists_are_probed_as_deep_as_for_the_items_that_a_selection_passes_over() -> None:
    """One in ten is chosen, so ten items are as deep in the lists as a hundred are without a selection."""
    vectors = unit_vectors(400, 6)
    parts = sharded(vectors, np.zeros(400, np.int64), 1, 20, 1)
    index = SelectiveIndex(ShardedIndex(parts.shards, [Depth(10, 1, 1.0), Depth(100, 8, 1.0)]), 400, direct_up_to=0)
    whole, _ = index.search(vectors[:5], 10)
    chosen = index.selection(np.arange(400) % 10 == 3)
    ids, _ = index.search(vectors[:5], 10, chosen)
    deep, _ = parts.probe(vectors[:5], 10, 8, among=chosen)
    assert (ids == deep).all()
    assert (whole == parts.probe(vectors[:5], 10, 1)[0]).all()
    assert (deep != parts.probe(vectors[:5], 10, 4, among=chosen)[0]).any()
