"""The cheapest depth that reaches the target, on made-up recalls and on an index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raycl.config import IndexConfig
from raycl.index import tuning
from raycl.index.nearest import exact, recall
from raycl.index.plan import choose
from raycl.index.search import Depth, ShardedIndex
from tests.index.builders import of_plan, sharded, unit_vectors


def space_of(kind: str = "ivf_flat", num_lists: int = 24, num_items: int = 10_000, **config: Any) -> tuning.Space:
    plan = choose(IndexConfig.model_validate({"kind": kind, "num_lists": num_lists, **config}), num_items, 16, 0.9)
    return tuning.space(plan, num_items, 16, num_items // 2)


def measured(reached: dict[int, list[float]], asked: list[int]) -> list[Depth]:
    """What tuning finds at 10 and 50 items of 24 lists where so much is reached; ``asked`` hears what it tries."""

    def measure(nprobe: int) -> tuning.Recalls:
        asked.append(nprobe)
        return [[value] for value in reached[max(known for known in reached if known <= nprobe)]]

    return list(tuning.tune(measure, (10, 50), space_of(), 0.9))


def test_tuning_takes_the_fewest_lists_for_each_number_of_items() -> None:
    reached = {1: [0.5, 0.2], 3: [0.95, 0.7], 8: [0.99, 0.8], 11: [1.0, 0.9], 24: [1.0, 1.0]}
    asked: list[int] = []
    assert measured(reached, asked) == [Depth(10, 3, 0.95), Depth(50, 11, 0.9)]
    assert len(asked) == len(set(asked)) <= 9


def test_more_items_never_get_fewer_lists() -> None:
    assert measured({1: [0.5, 0.95], 2: [0.9, 0.97]}, []) == [Depth(10, 2, 0.9), Depth(50, 2, 0.97)]


def test_tuning_ends_with_all_lists_where_the_target_is_out_of_reach() -> None:
    assert measured({1: [0.1, 0.0]}, []) == [Depth(10, 24, 0.1), Depth(50, 24, 0.0)]


@pytest.mark.parametrize("kind", ["flat", "sq8"])
def test_an_index_that_looks_at_everything_is_measured_once(kind: str) -> None:
    asked: list[int] = []

    def measure(effort: int) -> tuning.Recalls:
        asked.append(effort)
        return [[0.5]]

    assert tuning.tune(measure, (10,), space_of(kind, rerank="never"), 1.0) == (Depth(10, 1, 0.5),)
    assert asked == [1]


@pytest.mark.parametrize("target", [0.0, 0.3, 0.6, 0.8, 0.95, 1.0])
def test_tuning_on_an_index_reaches_the_target_with_the_fewest_lists(target: float) -> None:
    vectors, queries = unit_vectors(600, 8), unit_vectors(40, 8, 1)
    index = sharded(vectors, np.arange(600) % 2, 2, 24, 1)
    truth, _ = exact(vectors, queries, 10)
    reached = {nprobe: recall(index.probe(queries, 10, nprobe)[0], truth) for nprobe in range(1, 25)}
    assert len(set(reached.values())) > 10
    expected = next(nprobe for nprobe, value in reached.items() if value >= target)
    (found,) = tuning.tune(lambda nprobe: [[reached[nprobe]]], (10,), space_of(), target)
    assert found.recall == reached[found.nprobe] >= target
    assert expected <= found.nprobe <= expected + 1 + expected // 16


def test_of_lists_and_candidates_the_cheapest_mixture_is_taken() -> None:
    """Against every mixture there is."""
    vectors, queries = unit_vectors(3_000, 16), unit_vectors(60, 16, 1)
    config = IndexConfig(kind="ivf_pq", num_lists=20, pq_bytes=4, rerank="always")
    plan = choose(config, 3_000, 16, 0.9)
    space = tuning.space(plan, 3_000, 16, 1_500)
    index, (truth, _) = of_plan(plan, vectors, np.arange(3_000) % 2, 2), exact(vectors, queries, 10)

    def measure(effort: int) -> tuning.Recalls:
        return [[recall(index.probe(queries, 10, effort, 10 * factor)[0], truth) for factor in space.factors]]

    (found,) = tuning.tune(measure, (10,), space, 0.9)
    assert found.recall >= 0.9
    enough = [
        space.cost(effort, 10, factor)
        for effort in range(1, 21)
        for factor, reached in zip(space.factors, measure(effort)[0], strict=True)
        if reached >= 0.9
    ]
    assert space.cost_of(found) <= 1.1 * min(enough)
    assert found.candidates > 10
    tuned = ShardedIndex(index._shards, [found], index._stored)
    assert recall(tuned.search(queries, 10)[0], truth) == found.recall


def test_a_graph_is_told_by_its_candidates() -> None:
    space = space_of("hnsw")
    (found,) = tuning.tune(lambda ef: [[min(1.0, ef / 100)]], (10,), space, 0.9)
    assert (found.nprobe, found.candidates) == (1, 0)
    assert 90 <= found.ef == found.effort <= 96
    assert found.recall == found.ef / 100


def test_depth_costs_more() -> None:
    for kind in ("ivf_flat", "ivf_pq", "hnsw"):
        space = space_of(kind, rerank="auto")
        assert space.cost(2, 10, 1) > space.cost(1, 10, 1)
    space = space_of("ivf_sq8", rerank="always")
    assert space.cost(1, 10, 4) > space.cost(1, 10, 1)
    assert space.below(space.cost(7, 10, 4), 10, 4) == 6
    assert space.below(0.0, 10, 4) == 0
