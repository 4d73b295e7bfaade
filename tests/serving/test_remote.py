"""Shards elsewhere answer as shards here, on every kind of index, and say so where one does not answer."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from raycl.index.search import Depth, ShardedIndex
from raycl.index.selective import SelectiveIndex
from raycl.serving import remote
from raycl.serving.remote import NoShard, Parts, RemoteIndex
from raycl.serving.shard import Shard, Shards
from tests.index.builders import COMPRESSED, SCANNED, Vectors, of_plan, plan_of, unit_vectors
from tests.serving.elsewhere import Elsewhere

ROWS, DIM, NUM_SHARDS = 1_200, 16, 4
KINDS = [
    (kind, metric, rerank)
    for kind in (*SCANNED, "hnsw")
    for metric in ("inner_product", "l2")
    for rerank in ("never", "always")
    if rerank == "never" or kind in COMPRESSED
]


@functools.cache
def built(kind: str, metric: str, rerank: str) -> ShardedIndex:
    """An index in shards; some take long to train, so each is made once."""
    plan = plan_of(kind, ROWS, DIM, metric=metric, rerank=rerank)
    depths = [Depth(40, 5, 1.0, 60 if kind == "hnsw" else 0, 80 if rerank == "always" else 0)]
    return of_plan(plan, unit_vectors(ROWS, DIM), np.arange(ROWS) * 7 % NUM_SHARDS, NUM_SHARDS, depths)


def both(kind: str, metric: str, rerank: str, num_parts: int) -> tuple[SelectiveIndex, RemoteIndex, Elsewhere]:
    """The same index here and elsewhere."""
    whole = built(kind, metric, rerank)
    elsewhere = Elsewhere.of(whole, num_parts, ROWS + 5)
    here = SelectiveIndex(whole, ROWS + 5)
    return here, remote.index_of(Parts(elsewhere, num_parts), ROWS + 5, whole.depths), elsewhere


@pytest.mark.parametrize("num_parts", [1, 3, 6])
@pytest.mark.parametrize(("kind", "metric", "rerank"), KINDS)
def test_parts_elsewhere_answer_as_one_process(kind: str, metric: str, rerank: str, num_parts: int) -> None:
    here, there, _ = both(kind, metric, rerank, num_parts)
    generator, queries = np.random.default_rng(3), unit_vectors(5, DIM, 9)
    wanted = np.array([1, 10, 37, 90, 200])
    for share in (None, 0.9, 0.3, 0.01):
        among = None if share is None else here.selection(generator.random(ROWS + 5) < share)
        expected, scores = here.search(queries, wanted, among)
        found, found_scores = there.search(queries, wanted, among)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found_scores, scores, atol=1e-5)
    rows = generator.choice(ROWS, 20)
    np.testing.assert_array_equal(there.vectors(rows), here.vectors(rows))
    np.testing.assert_allclose(there.scores(queries, rows), here.scores(queries, rows), atol=1e-6)
    assert there.vectors(rows[:0]).shape == (0, DIM)
    np.testing.assert_array_equal(there.present, here.present)


def test_few_rows_are_scored_where_they_lie() -> None:
    here, there, elsewhere = both("ivf_flat", "inner_product", "never", 3)
    among, queries = here.selection(np.arange(ROWS + 5) < 30), unit_vectors(2, DIM, 9)
    elsewhere.asked.clear()
    np.testing.assert_array_equal(there.search(queries, 40, among)[0], here.search(queries, 40, among)[0])
    assert [[what for _, what, _ in asked] for asked in elsewhere.asked] == [["exactly"] * 3]


def test_a_batch_is_one_call_a_part() -> None:
    _, there, elsewhere = both("ivf_pq", "inner_product", "always", 3)
    elsewhere.asked.clear()
    there.search(unit_vectors(64, DIM, 9), np.full(64, 10))
    assert [[(part, what) for part, what, _ in asked] for asked in elsewhere.asked] == [
        [(part, "probe") for part in range(3)]
    ]


def test_a_part_that_is_silent_is_left_out_and_told_and_not_asked_again() -> None:
    here, there, elsewhere = both("flat", "inner_product", "never", 2)
    queries: Vectors = unit_vectors(3, DIM, 9)
    kept = np.zeros(ROWS + 5, dtype=np.bool_)
    kept[elsewhere.parts[0].facts().rows] = True
    expected, _ = here.search(queries, 10, here.selection(kept))
    elsewhere.silent = {1}
    with remote.noticed() as lost:
        found, _ = there.search(queries, np.full(3, 10))
        assert lost.parts == {1}
        elsewhere.asked.clear()
        there.search(queries, np.full(3, 10))
        assert {part for asked in elsewhere.asked for part, _, _ in asked} == {0}
    np.testing.assert_array_equal(found, expected)
    assert kept[found].all()
    elsewhere.silent = set()
    with remote.noticed() as lost:
        np.testing.assert_array_equal(there.search(queries, 10)[0], here.search(queries, 10)[0])
    assert not lost.parts


def test_vectors_of_a_silent_part_are_not_known_and_those_of_the_others_are() -> None:
    here, there, elsewhere = both("flat", "inner_product", "never", 2)
    rows, queries = np.arange(8), unit_vectors(2, DIM, 9)
    of_first = np.isin(rows, elsewhere.parts[0].facts().rows)
    expected, scores = (np.where(of_first[:, None], here.vectors(rows), np.nan), here.scores(queries, rows))
    elsewhere.silent = {1}
    with remote.noticed() as lost:
        np.testing.assert_array_equal(there.vectors(rows), expected)
        np.testing.assert_array_equal(there.scores(queries, rows), np.where(of_first, scores, np.nan))
        assert np.isnan(there.vectors(rows[~of_first])).all()
    assert lost.parts == {1}
    with pytest.raises(NoShard, match=r"\[1\] did not answer"):
        there.vectors(rows)


def test_without_any_part_there_is_no_answer_and_unnoticed_there_is_none_with_one_less() -> None:
    _, there, elsewhere = both("flat", "inner_product", "never", 2)
    elsewhere.silent = {0}
    with pytest.raises(NoShard, match=r"of 2 parts of the index \[0\] did not answer in time"):
        there.search(unit_vectors(1, DIM), 3)
    elsewhere.silent = {0, 1}
    with remote.noticed(), pytest.raises(NoShard, match=r"\[0, 1\] did not answer"):
        there.search(unit_vectors(1, DIM), 3)


def test_a_part_keeps_the_two_newest_releases_and_loads_each_once() -> None:
    loaded: list[str] = []
    told_quietly: list[bool] = []
    whole = of_plan(plan_of("flat", 20, DIM), unit_vectors(20, DIM), np.zeros(20, dtype=int), 1, [])

    def load(name: str, *, quietly: bool) -> Shard:
        loaded.append(name)
        told_quietly.append(quietly)
        return Shard(whole, 20)

    shards = Shards(load)
    for name in ("a", "b", "a", "b", "c", "b", "a"):
        assert len(shards.ask(name, "facts").rows) == 20
    assert loaded == ["a", "b", "c", "a"]
    assert told_quietly == [False, True, True, True]  # while another answers
    with pytest.raises(ValueError, match="what=of: a shard answers no such question"):
        shards.ask("a", "of", "b")


def test_the_release_that_answers_after_a_rollback_stays_while_another_is_loaded() -> None:
    loaded: list[str] = []

    def load(name: str, *, quietly: bool) -> Shard:
        loaded.append(name)
        return Shard(ShardedIndex([], ()), 0)

    shards = Shards(load)
    for name in ("a", "b", "a", "c", "a"):
        shards.of(name)
    assert loaded == ["a", "b", "c"]
