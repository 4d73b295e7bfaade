"""Shards answer as one index would, and as a sort of all scores does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.config import IndexConfig
from raycl.index import tuning
from raycl.index.nearest import Vectors, exact, hits, recall
from raycl.index.plan import choose
from raycl.index.search import Depth, ShardedIndex
from tests.index.builders import clustered, sharded, unit_vectors


@pytest.mark.parametrize("num_shards", [1, 2, 7])
@pytest.mark.parametrize(("num_lists", "nprobe"), [(0, 1), (6, 1), (6, 3), (6, 6)])
@given(seed=st.integers(0, 10_000), rows=st.integers(8, 120), k=st.integers(1, 130))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_shards_answer_as_one_index(num_shards: int, num_lists: int, nprobe: int, seed: int, rows: int, k: int) -> None:
    vectors, queries = unit_vectors(rows, 6, seed), unit_vectors(5, 6, seed + 1)
    shards = np.random.default_rng(seed).integers(0, num_shards, rows)
    whole = sharded(vectors, np.zeros(rows, np.int64), 1, num_lists, nprobe)
    parts = sharded(vectors, shards, num_shards, num_lists, nprobe)
    assert len(parts) == len(whole) == rows
    expected_ids, expected_scores = whole.search(queries, k)
    ids, scores = parts.search(queries, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(scores, np.where(ids < 0, -np.inf, expected_scores), atol=1e-6)


@pytest.mark.parametrize("num_lists", [0, 6])
def test_all_lists_together_are_exact(num_lists: int) -> None:
    vectors, queries = unit_vectors(100, 6), unit_vectors(9, 6, 1)
    ids, scores = sharded(vectors, np.arange(100) % 3, 3, num_lists, max(num_lists, 1)).search(queries, 10)
    products = queries @ vectors.T
    assert ids.tolist() == np.argsort(-products, axis=1)[:, :10].tolist() == exact(vectors, queries, 10)[0].tolist()
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :10], atol=1e-6)


def test_hits_of_the_shards_add_up_to_the_recall_of_the_whole() -> None:
    """With lists left out: what a shard finds of the best of all is among the best of what all shards find."""
    vectors, queries = unit_vectors(600, 8), unit_vectors(40, 8, 1)
    truth, _ = exact(vectors, queries, 30)
    whole = sharded(vectors, np.arange(600) % 3, 3, 12, 2)
    alone = [ShardedIndex([shard], ()) for shard in whole._shards]
    for k in (1, 7, 30):
        found, _ = whole.probe(queries, k, 2)
        apart = sum(hits(shard.probe(queries, k, 2)[0], truth[:, :k]) for shard in alone)
        assert apart / truth[:, :k].size == recall(found, truth[:, :k]) < 1.0


def test_exact_fills_up_where_there_are_no_more() -> None:
    ids, scores = exact(unit_vectors(3, 4), unit_vectors(2, 4, 1), 100)
    assert ids.shape == scores.shape == (2, 100)
    assert (np.sort(ids[:, :3]) == [0, 1, 2]).all()
    assert (ids[:, 3:] == -1).all()
    assert (exact(unit_vectors(0, 4), unit_vectors(2, 4, 1), 5)[0] == -1).all()


Genres = tuple[Vectors, Vectors, ShardedIndex]


@pytest.fixture(scope="module")
def genres() -> Genres:
    """A clustered catalogue, where few lists hold all that a few items ask for, queries near it, and its index."""
    both = clustered(6_060, 16, 75)
    return both[60:], both[:60], sharded(both[60:], np.arange(6_000) % 2, 2, 75, 1)


def tuned(index: ShardedIndex, vectors: Vectors, queries: Vectors, ks: tuple[int, ...]) -> ShardedIndex:
    """The same shards, probed as deep as a floor of 0.95 needs at each of ``ks``."""
    truth, _ = exact(vectors, queries, ks[-1])

    def measure(nprobe: int) -> list[list[float]]:
        found, _ = index.probe(queries, ks[-1], nprobe)
        return [[recall(found[:, :k], truth[:, :k])] for k in ks]

    plan = choose(IndexConfig(kind="ivf_flat", num_lists=index.num_lists), len(index), vectors.shape[1], 0.95)
    space = tuning.space(plan, len(index), vectors.shape[1], len(index))
    return ShardedIndex(index._shards, tuning.tune(measure, ks, space, 0.95))


@pytest.mark.parametrize("k", [1, 10, 40, 41, 200, 800, 801, 3_000, 6_000, 7_000])
def test_answers_are_whole_and_near_exact_for_any_number_of_items(genres: Genres, k: int) -> None:
    """Tuned at up to 800 items; the depth for 40 would leave most answers of 800 short."""
    vectors, queries, built = genres
    index = tuned(built, vectors, queries, (40, 200, 800))
    shallow = ShardedIndex(index._shards, index.depths[:1])
    assert (shallow.probe(queries, 800, shallow.depths[0].nprobe)[0] < 0).any()
    found, scores = index.search(queries, k)
    assert found.shape == scores.shape == (60, k)
    assert ((found >= 0).sum(1) == min(k, 6_000)).all()
    truth, of_truth = exact(vectors, queries, min(k, 6_000))
    assert recall(found, truth) >= 0.95
    assert (np.diff(scores[:, : truth.shape[1]], axis=1) <= 0).all()
    hit = found[:, : truth.shape[1]] == truth
    np.testing.assert_allclose(scores[:, : truth.shape[1]][hit], of_truth[hit], atol=1e-5)


def test_an_index_that_was_tuned_for_few_items_still_answers_whole(genres: Genres) -> None:
    _, queries, built = genres
    index = ShardedIndex(built._shards, [Depth(5_000, 1, 1.0)])
    assert ((index.probe(queries, 2_000, 1)[0] >= 0).sum(1) < 2_000).all()
    found, _ = index.search(queries, 2_000)
    assert (found >= 0).all()
    assert all(len(np.unique(row)) == 2_000 for row in found)


def test_an_answer_does_not_depend_on_the_other_queries(genres: Genres) -> None:
    vectors, queries, built = genres
    index = tuned(built, vectors, queries, (10, 100))
    wanted = np.resize([1, 10, 11, 100, 101, 900, 6_500], len(queries))
    ids, scores = index.search(queries, wanted)
    assert ids.shape == scores.shape == (60, 6_500)
    for row, k in enumerate(wanted.tolist()):
        alone, of_alone = index.search(queries[row : row + 1], k)
        np.testing.assert_array_equal(ids[row, :k], alone[0])
        np.testing.assert_allclose(scores[row, :k], of_alone[0], atol=1e-5)
        assert (ids[row, k:] == -1).all()
        assert np.isneginf(scores[row, k:]).all()


def test_no_queries_are_no_answers() -> None:
    index = sharded(unit_vectors(50, 4), np.zeros(50, np.int64), 1, 4, 1)
    ids, scores = index.search(unit_vectors(0, 4), 3)
    assert ids.shape == scores.shape == (0, 3)
