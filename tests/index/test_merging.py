"""Shards of inverted lists as one index: the same answers from one search, also among some, re-ranked, by vectors."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from raycl.index import search
from raycl.index.merging import together
from raycl.index.search import Depth, ShardedIndex, listed
from raycl.index.selective import SelectiveIndex
from tests.index.builders import SCANNED, of_plan, plan_of, trained_on, unit_vectors

ROWS, DIM = 900, 16
LISTED = [kind for kind in SCANNED if kind.startswith("ivf")]


@functools.lru_cache(maxsize=8)
def trained(kind: str, metric: str) -> bytes:
    """What every shard begins with."""
    return trained_on(plan_of(kind, ROWS, DIM, metric=metric), unit_vectors(ROWS, DIM))


def both(kind: str, num_shards: int, metric: str, rerank: str) -> tuple[ShardedIndex, ShardedIndex, Any]:
    """An index in shards and the same with its lists together, and queries."""
    vectors = unit_vectors(ROWS, DIM)
    shards = np.random.default_rng(num_shards).integers(0, num_shards, ROWS)
    shards[: ROWS // 3] = 0  # of very different sizes
    plan, begun = plan_of(kind, ROWS, DIM, metric=metric, rerank=rerank), trained(kind, metric)
    depths = [Depth(10, 3, 1.0, 0, 40 if plan.rerank else 0), Depth(100, 5, 1.0, 0, 200 if plan.rerank else 0)]
    apart, parts = (of_plan(plan, vectors, shards, num_shards, depths, trained=begun) for _ in range(2))
    merged = ShardedIndex(together(iter(parts.shards), num_shards), depths, parts.stored)
    return apart, merged, unit_vectors(25, DIM, 9)


@pytest.mark.parametrize(
    ("kind", "metric"), [*((kind, "inner_product") for kind in LISTED), ("ivf_flat", "l2"), ("ivf_sq8", "l2")]
)
@pytest.mark.parametrize("num_shards", [1, 2, 7, 16])
def test_lists_together_answer_as_shards_do(kind: str, num_shards: int, metric: str) -> None:
    apart, merged, queries = both(kind, num_shards, metric, "never")
    assert (len(merged.shards), len(merged), merged.num_lists) == (1, ROWS, apart.num_lists)
    for k in (1, 10, 300, ROWS + 5):
        for found, expected in zip(merged.search(queries, k), apart.search(queries, k), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["ivf_sq8", "ivf_pq"])
def test_so_they_do_when_re_ranked_among_some_and_by_vectors(kind: str) -> None:
    apart, merged, queries = both(kind, 7, "inner_product", "always")
    one, other = (SelectiveIndex(index, ROWS, direct_up_to=20) for index in (merged, apart))
    some = np.random.default_rng(1).random(ROWS) < 0.3
    for kept in (some, np.ones(ROWS, dtype=np.bool_)):
        found, expected = (index.search(queries, 30, index.selection(kept)) for index in (one, other))
        for part, truth in zip(found, expected, strict=True):
            np.testing.assert_array_equal(part, truth)
    rows = np.array([5, 899, 400, 0])
    np.testing.assert_array_equal(one.vectors(rows), other.vectors(rows))


@pytest.mark.parametrize("kind", LISTED)
def test_vectors_are_found_in_lists_that_were_put_together(kind: str) -> None:
    apart, merged, _ = both(kind, 7, "inner_product", "never")
    rows = np.arange(ROWS)
    found, expected = (SelectiveIndex(index, ROWS).vectors(rows) for index in (merged, apart))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["flat", "sq8", "hnsw"])
def test_shards_without_lists_stay_as_they_are(kind: str) -> None:
    parts = of_plan(plan_of(kind, ROWS, DIM), unit_vectors(ROWS, DIM), np.arange(ROWS) % 3, 3)
    assert together(iter(parts.shards), 3) == list(parts.shards)


def test_hardly_a_list_moves_when_others_follow() -> None:
    """Shards by a hash have lists of nearly the same sizes, so the room that is made at first is enough for most."""
    vectors = unit_vectors(20_000, DIM)
    plan = plan_of("ivf_flat", len(vectors), DIM)
    parts = of_plan(plan, vectors, np.random.default_rng(3).integers(0, 16, len(vectors)), 16)
    lists: Any = listed(parts.shards[0]).invlists
    places: list[list[int]] = []

    def come() -> Iterator[Any]:
        for number, shard in enumerate(parts.shards):
            if number:
                places.append([int(lists.get_codes(one)) for one in range(lists.nlist)])
            yield shard

    together(come(), 16)
    assert sum(lists.list_size(number) for number in range(lists.nlist)) == len(vectors)
    assert np.mean(np.array(places[0]) == np.array(places[-1])) > 0.8


def test_stored_vectors_must_be_as_many_as_all_shards_hold() -> None:
    apart, merged, _ = both("ivf_sq8", 7, "inner_product", "always")
    with pytest.raises(ValueError, match=r"all shards have 900 items and \d+ stored vectors"):
        ShardedIndex(merged.shards, (), apart.stored[:-1])


@pytest.mark.parametrize("kind", LISTED)
@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("products", [1, 100, 1 << 22])
def test_a_query_looks_into_the_same_lists_alone_and_among_others(
    kind: str, metric: str, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several queries are compared with the centroids by matrix products, so many at a time, and one is not."""
    monkeypatch.setattr(search, "_PRODUCTS", products)
    _, merged, queries = both(kind, 2, metric, "never")
    for effort in (1, 5, merged.num_lists):
        found, scores = merged.probe(queries, 20, effort)
        alone = [merged.probe(queries[row : row + 1], 20, effort) for row in range(len(queries))]
        np.testing.assert_array_equal(found, np.concatenate([ids for ids, _ in alone]))
        np.testing.assert_allclose(scores, np.concatenate([of_ids for _, of_ids in alone]), atol=1e-5)
