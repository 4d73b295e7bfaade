"""A search among some items is a sort of their scores, however few or many they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.index.search import Depth, ShardedIndex
from raycl.index.selection import Selection
from raycl.index.selective import SelectiveIndex, top
from tests.index.builders import COMPRESSED, SCANNED, Vectors, of_plan, plan_of, sharded, unit_vectors


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


KINDS = [
    (kind, metric, rerank)
    for kind in (*SCANNED, "hnsw")
    for metric in ("inner_product", "l2")
    for rerank in ("never", "always")
    if rerank == "never" or kind in COMPRESSED
]


def of_kind(kind: str, metric: str, rerank: str, num_shards: int) -> tuple[ShardedIndex, Vectors]:
    """1,200 vectors of an index of this kind, of which all is looked at and all that is looked at re-ranked."""
    vectors, shards = unit_vectors(1_200, 8), np.random.default_rng(1).integers(0, num_shards, 1_200)
    plan = plan_of(kind, 1_200, 8, metric=metric, rerank=rerank)
    depth = Depth(10, 9, 1.0, 1_200 if kind == "hnsw" else 0, 1_200 if plan.rerank else 0)
    return of_plan(plan, vectors, shards, num_shards, [depth]), vectors


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize(("kind", "metric", "rerank"), KINDS)
def test_a_selection_of_any_kind_is_what_is_left_of_the_answer_without_it(
    kind: str, metric: str, rerank: str, num_shards: int
) -> None:
    """Of random selections, small and large: scored one by one, and passed over by FAISS."""
    index, _ = of_kind(kind, metric, rerank, num_shards)
    queries, generator = unit_vectors(4, 8, 9), np.random.default_rng(5)
    all_ids, all_scores = index.search(queries, 1_200)
    by_row = np.full((4, 1_200), np.nan, dtype=np.float32)
    np.put_along_axis(by_row, all_ids, all_scores, axis=1)
    assert np.isfinite(by_row).all()
    for direct_up_to in (0, 1_200):
        selective = SelectiveIndex(index, 1_210, direct_up_to)
        for share in (0.004, 0.05, 0.4, 0.95, 1.0):
            among = selective.selection(generator.random(1_210) < share)
            ids, scores = selective.search(queries, np.array([1, 7, 40, 1_200]), among)
            for query, k in enumerate((1, 7, 40, 1_200)):
                found = ids[query][ids[query] >= 0]
                expected = np.sort(by_row[query, among.rows])[::-1][:k]
                assert len(found) == len(set(found.tolist())) == len(expected)
                assert among.kept[found].all()
                assert scores[query, : len(found)] == pytest.approx(expected, abs=3e-6)
                assert scores[query, : len(found)] == pytest.approx(by_row[query, found], abs=3e-6)


@pytest.mark.parametrize("kind", ["hnsw", "sq8", "ivf_sq8", "ivf_pq"])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_selection_is_filled_from_any_depth(kind: str, num_shards: int) -> None:
    """Of all of which nothing is near, as of those that a hash put into one shard."""
    whole, vectors = of_kind(kind, "inner_product", "never", num_shards)
    index = SelectiveIndex(ShardedIndex(whole.shards, [Depth(10, 1, 1.0, 16 if kind == "hnsw" else 0)]), 1_200, 0)
    of_one_shard = np.random.default_rng(1).integers(0, num_shards, 1_200) == 0
    far = vectors @ vectors[0] < -0.4
    for kept in (far, of_one_shard & (np.arange(1_200) % 3 == 1)):
        among = index.selection(kept)
        for k in (5, 60, among.count, among.count + 9):
            ids, _ = index.search(vectors[:3], k, among)
            assert ((ids >= 0).sum(1) == min(k, among.count)).all()
            assert all(among.kept[row[row >= 0]].all() for row in ids)


def test_what_no_way_through_a_graph_leads_to_is_found() -> None:
    """Of 133 equal vectors most are linked to equal ones alone."""
    vectors = np.repeat(unit_vectors(3, 8), 133, axis=0)
    parts = of_plan(plan_of("hnsw", 399, 8), vectors, np.zeros(399, np.int64), 1, [Depth(10, 1, 1.0, 399)])
    assert (parts.search(vectors[:1], 399)[0] < 0).any()
    index = SelectiveIndex(parts, 399, direct_up_to=0)
    kept = np.arange(399) % 2 == 0
    assert np.sort(index.search(vectors[:1], 399)[0][0]).tolist() == list(range(399))
    assert (
        np.sort(index.search(vectors[:1], 200, index.selection(kept))[0][0]).tolist() == np.flatnonzero(kept).tolist()
    )


def test_a_graph_of_which_one_shard_holds_all_that_is_kept_gives_all_of_it() -> None:
    whole, vectors = of_kind("hnsw", "inner_product", "never", 3)
    kept = np.random.default_rng(1).integers(0, 3, 1_200) == 0
    ids, _ = whole.probe(vectors[:2], 200, 1_200, among=Selection(kept))
    assert (ids >= 0).all()
    assert kept[ids].all()


@pytest.mark.parametrize(("kind", "metric", "rerank"), KINDS)
def test_vectors_of_any_kind_are_nearly_those_that_were_indexed(kind: str, metric: str, rerank: str) -> None:
    """Those of 16 bits where some are stored; a product code of half a byte a number is the coarsest."""
    index, vectors = of_kind(kind, metric, rerank, 3)
    rows = np.array([7, 7, 1_199, 0, 12])
    found = SelectiveIndex(index, 1_200).vectors(rows)
    coarse = 0.0 if kind in ("flat", "ivf_flat", "hnsw") else 0.35 if kind == "ivf_pq" else 0.02
    assert found == pytest.approx(vectors[rows], abs=1e-3 if rerank == "always" else coarse)


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
