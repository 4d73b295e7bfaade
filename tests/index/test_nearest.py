"""Merging is sorting everything, whatever the order of the shards; recall is a share of the truth."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.index.nearest import Ids, Scores, exact, merge, merge_in_turn, put_in_order, recall
from tests.index.builders import unit_vectors


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


@given(st.integers(1, 5), st.integers(1, 130), st.sampled_from([1, 5, 500]), st.integers(0, 1_000))
def test_one_answer_is_put_in_the_order_of_a_merge(num_queries: int, k: int, distinct: int, seed: int) -> None:
    """Rows that are short, with equal scores in pairs and in longer runs, and without any."""
    generator = np.random.default_rng(seed)
    scores = -np.sort(-generator.integers(0, distinct, (num_queries, k)).astype(np.float32), axis=1)
    ids = np.argsort(generator.random((num_queries, 2 * k)), axis=1)[:, :k].astype(np.int64)
    for row in np.flatnonzero(generator.random(num_queries) < 0.3):
        ends = int(generator.integers(0, k))
        ids[row, ends:], scores[row, ends:] = -1, float(generator.choice(np.array([np.finfo(np.float32).min, 0.0])))
    expected = merge(ids[None], scores[None], k)
    found = put_in_order(ids.copy(), scores.copy())
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@given(shard_answers(), st.integers(1, 20))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_merging_in_turn_is_merging_at_once(answers: tuple[Ids, Scores], k: int) -> None:
    ids, scores = answers
    expected, found = (
        merge(ids, scores, k),
        merge_in_turn((merge(ids[s : s + 1], scores[s : s + 1], k) for s in range(len(ids))), k),
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@given(seed=st.integers(0, 1_000), num_parts=st.integers(1, 5), k=st.integers(1, 60))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_exact_answers_of_parts_merge_to_those_of_the_whole(seed: int, num_parts: int, k: int) -> None:
    vectors, queries = unit_vectors(50, 6, seed), unit_vectors(4, 6, seed + 1)
    part_of = np.random.default_rng(seed).integers(0, num_parts, 50)

    def of_part(part: int) -> tuple[Ids, Scores]:
        rows = np.flatnonzero(part_of == part)
        places, scores = exact(vectors[rows], queries, k)
        return (np.where(places < 0, -1, rows[places]) if len(rows) else places), scores

    found, scores = merge_in_turn((of_part(part) for part in range(num_parts)), k)
    expected, of_expected = exact(vectors, queries, k)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, of_expected, atol=1e-6)


def test_recall_is_the_share_of_the_truth_whatever_the_order() -> None:
    truth = np.array([[1, 2], [3, 4]])
    assert recall(np.array([[2, 1], [4, 3]]), truth) == 1.0
    assert recall(np.array([[2, 9, -1], [-1, -1, -1]]), truth) == 0.25
    assert recall(np.zeros((0, 3), np.int64), truth[:0]) == 0.0
