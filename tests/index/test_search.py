"""Shards answer as one index would, and as a sort of all scores does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.index.search import Ids, Scores, ShardedIndex, exact, merge, recall, tune
from tests.index.builders import sharded, unit_vectors


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
    assert ids.tolist() == np.argsort(-products, axis=1)[:, :10].tolist() == exact(vectors, queries, 10).tolist()
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :10], atol=1e-6)


def brute_merge(ids: Ids, scores: Scores, k: int) -> list[list[tuple[int, float]]]:
    """Every query's answers of all shards in one list, sorted."""
    merged = []
    for query in range(ids.shape[1]):
        found = [
            (int(one), float(score))
            for shard in range(len(ids))
            for one, score in zip(ids[shard, query], scores[shard, query], strict=True)
            if one >= 0
        ]
        found = sorted(found, key=lambda answer: (-answer[1], answer[0]))[:k]
        merged.append(found + [(-1, -np.inf)] * (k - len(found)))
    return merged


@st.composite
def shard_answers(draw: st.DrawFn) -> tuple[Ids, Scores]:
    """Answers of (shards, queries, k): distinct ids, few distinct scores so that ties are common, -1 with any score."""
    num_shards, num_queries, shard_k = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    shape = (num_shards, num_queries, shard_k)
    ids, scores = np.empty(shape, np.int64), np.empty(shape, np.float32)
    for query in range(num_queries):
        names = draw(st.permutations(range(num_shards * shard_k)))
        for place, (shard, rank) in enumerate(np.ndindex(num_shards, shard_k)):
            ids[shard, query, rank] = -1 if draw(st.integers(0, 3)) == 0 else names[place]
            scores[shard, query, rank] = draw(st.sampled_from([-3.4e38, -1.0, 0.0, 0.25, 1.0, 3.4e38]))
    return ids, scores


@given(shard_answers(), st.integers(1, 20))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_merging_equals_sorting_everything(answers: tuple[Ids, Scores], k: int) -> None:
    ids, scores = merge(*answers, k)
    assert ids.shape == scores.shape == (answers[0].shape[1], k)
    merged = [list(zip(*row, strict=True)) for row in zip(ids.tolist(), scores.tolist(), strict=True)]
    assert merged == brute_merge(*answers, k)


@given(shard_answers(), st.integers(1, 20))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_order_of_the_shards_does_not_matter(answers: tuple[Ids, Scores], k: int) -> None:
    ids, scores = answers
    expected = merge(ids, scores, k)
    found = merge(ids[::-1], scores[::-1], k)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_no_more_neighbours_never_win() -> None:
    """FAISS fills with -1 and an unspecified score; here the score would be the best of all."""
    ids = np.array([[[-1, -1]], [[4, -1]]])
    scores = np.array([[[9.0, 9.0]], [[-0.5, 9.0]]], dtype=np.float32)
    found, of_found = merge(ids, scores, 3)
    assert found.tolist() == [[4, -1, -1]]
    assert of_found.tolist() == [[-0.5, -np.inf, -np.inf]]


def test_a_tie_between_shards_goes_to_the_smaller_id() -> None:
    ids, scores = np.array([[[8]], [[3]]]), np.array([[[0.5]], [[0.5]]], dtype=np.float32)
    assert merge(ids, scores, 2)[0].tolist() == [[3, 8]]


def test_recall_is_the_share_of_the_truth_whatever_the_order() -> None:
    truth = np.array([[1, 2], [3, 4]])
    assert recall(np.array([[2, 1], [4, 3]]), truth) == 1.0
    assert recall(np.array([[2, 9, -1], [-1, -1, -1]]), truth) == 0.25
    assert recall(np.zeros((0, 3), np.int64), truth[:0]) == 0.0


def test_exact_asks_for_no_more_than_there_is() -> None:
    assert exact(unit_vectors(3, 4), unit_vectors(2, 4, 1), 100).shape == (2, 3)


def probing(num_lists: int) -> tuple[ShardedIndex, np.ndarray[tuple[int, int], np.dtype[np.float32]], Ids]:
    """An index that needs several lists, queries, and the truth."""
    vectors, queries = unit_vectors(600, 8), unit_vectors(40, 8, 1)
    index = sharded(vectors, np.arange(600) % 2, 2, num_lists, 1)
    return index, queries, exact(vectors, queries, 10)


@pytest.mark.parametrize("target", [0.0, 0.3, 0.6, 0.8, 0.95, 1.0])
def test_tuning_takes_the_smallest_power_of_two_that_reaches_the_target(target: float) -> None:
    num_lists = 24
    index, queries, truth = probing(num_lists)
    reached = {}
    for nprobe in (1, 2, 4, 8, 16, num_lists):
        asked = ShardedIndex(index._shards, nprobe)
        reached[nprobe] = recall(asked.search(queries, 10)[0], truth)
    assert len(set(reached.values())) > 3
    expected = next(nprobe for nprobe, value in reached.items() if value >= target)
    assert tune(index, num_lists, queries, truth, target) == (expected, reached[expected])


def test_tuning_ends_with_all_lists_where_the_target_is_out_of_reach() -> None:
    index, queries, truth = probing(24)
    wrong = truth + 600
    assert tune(index, 24, queries, wrong, 0.5) == (24, 0.0)


def test_a_flat_index_has_nothing_to_tune() -> None:
    vectors, queries = unit_vectors(50, 4), unit_vectors(5, 4, 1)
    index = sharded(vectors, np.zeros(50, np.int64), 1, 0, 1)
    assert tune(index, 0, queries, exact(vectors, queries, 10), 1.0) == (1, 1.0)
