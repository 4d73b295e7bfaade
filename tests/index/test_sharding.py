"""Every kind of index in shards against the same kind in one piece, and against a sort of all scores."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.index.nearest import exact, recall
from raycl.index.plan import Plan
from raycl.index.search import Depth, ShardedIndex
from tests.index.builders import COMPRESSED, SCANNED, Vectors, clustered, of_plan, plan_of, trained_on, unit_vectors

SHARDS = [1, 2, 7, 16]


@functools.lru_cache(maxsize=32)
def trained(plan: Plan, dim: int) -> bytes:
    """Trained once for all examples, on vectors that are none of theirs."""
    return trained_on(plan, unit_vectors(300, dim, 20_000))


def assert_alike(found: ShardedIndex, whole: ShardedIndex, queries: Vectors, k: int, effort: int, most: int) -> None:
    ids, scores = found.probe(queries, k, effort, most)
    expected_ids, expected_scores = whole.probe(queries, k, effort, most)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(scores, expected_scores, atol=2e-6)


@pytest.mark.parametrize("num_shards", SHARDS)
@pytest.mark.parametrize("rerank", ["never", "always"])
@pytest.mark.parametrize("kind", SCANNED)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(256, 500),
    k=st.integers(1, 60),
    nprobe=st.integers(1, 9),
    metric=st.sampled_from(["inner_product", "l2"]),
    times=st.sampled_from([1, 3]),
)
@settings(max_examples=5, deadline=None, derandomize=True)
def test_shards_answer_as_the_same_index_in_one_piece(
    kind: str, rerank: str, num_shards: int, seed: int, rows: int, k: int, nprobe: int, metric: str, times: int
) -> None:
    if kind not in COMPRESSED and rerank == "always":
        return
    vectors, queries = unit_vectors(rows, 8, seed), unit_vectors(5, 8, seed + 1)
    shards = np.random.default_rng(seed).integers(0, num_shards, rows)
    plan = plan_of(kind, 500, 8, metric=metric, rerank=rerank)
    template = trained(replace(plan, rerank=False, reason="", index_bytes=0), 8)
    whole = of_plan(plan, vectors, np.zeros(rows, np.int64), 1, trained=template)
    parts = of_plan(plan, vectors, shards, num_shards, parts=3, trained=template)
    assert len(parts) == len(whole) == rows
    assert_alike(parts, whole, queries, k, nprobe, k * times if plan.rerank else 0)


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("kind", SCANNED)
def test_one_shard_answers_as_faiss_itself(kind: str, metric: str) -> None:
    """An index that FAISS's factory makes, fills and searches, with nothing of ours between but the centroids."""
    vectors, queries = unit_vectors(600, 8), unit_vectors(20, 8, 1)
    plan = plan_of(kind, 600, 8, metric=metric)
    ours = of_plan(plan, vectors, np.arange(600) % 7, 7)
    raw: Any = faiss.index_factory(8, plan.factory, faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)
    if plan.num_lists:
        learnt = faiss.extract_index_ivf(ours.shards[0]).quantizer.reconstruct_n(0, plan.num_lists)
        faiss.extract_index_ivf(raw).quantizer.add(learnt)
        faiss.ParameterSpace().set_index_parameter(raw, "nprobe", 4)
    if kind == "ivf_pq":
        lists: Any = faiss.downcast_index(faiss.extract_index_ivf(raw))
        lists.pq.cp.seed = 1
        rotation: Any = faiss.downcast_VectorTransform(raw.chain.at(0))
        codes = faiss.ProductQuantizer(8, 4, 8)
        codes.cp.seed = 1
        rotation.pq = codes
    raw.train(vectors)
    raw.add(vectors)
    scores, ids = raw.search(queries, 15)
    found, of_found = ours.probe(queries, 15, 4)
    np.testing.assert_array_equal(found, ids)
    np.testing.assert_allclose(of_found, -scores if metric == "l2" else scores, atol=2e-6)


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("kind", COMPRESSED)
def test_re_ranking_all_candidates_is_exact_to_16_bits(kind: str, metric: str) -> None:
    vectors, queries = unit_vectors(500, 16), unit_vectors(30, 16, 1)
    index = of_plan(plan_of(kind, 500, 16, metric=metric, rerank="always"), vectors, np.arange(500) % 3, 3)
    best, of_best = exact(vectors, queries, 20, metric)
    found, scores = index.probe(queries, 20, 9, 500)
    assert recall(found, best) >= 0.995
    np.testing.assert_allclose(scores, of_best, atol=2e-3)
    by_codes = index.probe(queries, 20, 9)[0]
    assert recall(by_codes, best) < recall(found, best)


def test_exact_search_knows_the_metric() -> None:
    """On vectors of many lengths, where the two metrics differ."""
    vectors = unit_vectors(200, 6) * np.linspace(0.2, 3.0, 200, dtype=np.float32)[:, None]
    queries = unit_vectors(9, 6, 1)
    distances = ((queries[:, None] - vectors) ** 2).sum(2)
    found, scores = exact(vectors, queries, 5, "l2")
    np.testing.assert_array_equal(found, np.argsort(distances, axis=1)[:, :5])
    np.testing.assert_allclose(scores, -np.sort(distances, axis=1)[:, :5], rtol=1e-4)
    assert not np.array_equal(found, exact(vectors, queries, 5)[0])


@functools.lru_cache(maxsize=8)
def graph(num_shards: int) -> tuple[ShardedIndex, Vectors, Any]:
    rows = unit_vectors(8_200, 32)
    vectors, queries = rows[200:], rows[:200]
    shards = np.random.default_rng(3).integers(0, num_shards, len(vectors))
    plan = plan_of("hnsw", len(vectors), 32)
    return of_plan(plan, vectors, shards, num_shards), queries, exact(vectors, queries, 50)[0]


def cost_and_recall(num_shards: int, ef: int) -> tuple[int, float]:
    """Distances computed and recall@50 of a graph index."""
    index, queries, best = graph(num_shards)
    variables: Any = faiss.cvar
    statistics = variables.hnsw_stats
    statistics.reset()
    found, _ = index.probe(queries, 50, ef)
    return int(statistics.ndis), recall(found, best)


@pytest.mark.parametrize("num_shards", [2, 7, 16])
def test_graphs_in_shards_find_no_less_at_equal_cost_of_each(num_shards: int) -> None:
    """Shards that are searched beside one another: none works more than the one graph would."""
    for ef in (10, 20, 50, 100):
        (cost, found), (whole_cost, whole) = cost_and_recall(num_shards, ef), cost_and_recall(1, ef)
        assert found >= whole
        assert cost / num_shards <= whole_cost


@pytest.mark.parametrize("kind", ["hnsw", *COMPRESSED])
def test_answers_are_whole_whatever_the_depth(kind: str) -> None:
    vectors, queries = clustered(2_000, 16, 40), clustered(2_000, 16, 40)[:30]
    rerank = "always" if kind in COMPRESSED else "never"
    plan = plan_of(kind, 2_000, 16, rerank=rerank)
    depth = Depth(10, 1, 1.0, 16 if kind == "hnsw" else 0, 20 if plan.rerank else 0)
    index = of_plan(plan, vectors, np.arange(2_000) % 2, 2, [depth])
    for k in (1, 10, 11, 300):
        ids, scores = index.search(queries, k)
        assert (ids >= 0).all()
        assert all(len(np.unique(row)) == k for row in ids)
        assert (np.diff(scores, axis=1) <= 0).all()


def test_candidates_grow_with_what_is_wanted() -> None:
    vectors, queries = unit_vectors(1_500, 16), unit_vectors(20, 16, 1)
    plan = plan_of("ivf_pq", 1_500, 16, rerank="always")
    index = of_plan(plan, vectors, np.arange(1_500) % 2, 2, [Depth(10, 9, 1.0, 0, 80)])
    best = exact(vectors, queries, 400)[0]
    assert recall(index.search(queries, 10)[0], best[:, :10]) > 0.9
    assert recall(index.search(queries, 150)[0], best[:, :150]) > 0.9


def test_stored_vectors_of_another_shard_are_refused() -> None:
    vectors = unit_vectors(300, 8)
    index = of_plan(plan_of("sq8", 300, 8, rerank="always"), vectors, (np.arange(300) < 100).astype(np.int64), 2)
    with pytest.raises(ValueError, match="shard 0 has 200 items and 100 stored vectors"):
        ShardedIndex(index._shards, (), index._stored[::-1])


def test_a_plan_that_re_ranks_without_candidates_answers_by_codes() -> None:
    vectors, queries = unit_vectors(300, 8), unit_vectors(4, 8, 1)
    plan = plan_of("sq8", 300, 8, rerank="always")
    with_stored = of_plan(plan, vectors, np.arange(300) % 2, 2)
    without = of_plan(replace(plan, rerank=False), vectors, np.arange(300) % 2, 2)
    assert_alike(with_stored, without, queries, 7, 1, 0)
