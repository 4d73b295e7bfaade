"""The plan of an index, its quantizer, and what one shard holds."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from raycl.config import IndexConfig
from raycl.index import build
from tests.index.builders import unit_vectors


@pytest.mark.parametrize(("num_items", "kind"), [(1, "flat"), (50_000, "flat"), (50_001, "ivf_flat")])
def test_auto_is_exact_up_to_fifty_thousand_items(num_items: int, kind: str) -> None:
    assert build.plan(IndexConfig(), num_items).kind == kind


def test_a_flat_index_has_no_lists_whatever_the_size() -> None:
    plan = build.plan(IndexConfig(kind="flat"), 2_000_000)
    assert (plan.kind, plan.num_lists) == ("flat", 0)
    assert plan.reason == "2,000,000 items: exact search (flat)"


def test_lists_follow_the_root_of_the_number_of_items() -> None:
    plan = build.plan(IndexConfig(), 1_000_000)
    assert plan.num_lists == 4_000
    assert plan.reason == "1,000,000 items: 4,000 inverted lists (auto)"


@pytest.mark.parametrize(
    ("wanted", "num_items", "num_lists"), [(10, 10_000, 10), (5_000, 10_000, 1_250), (None, 80, 10), (4, 7, 1)]
)
def test_every_list_has_eight_items_or_more(wanted: int | None, num_items: int, num_lists: int) -> None:
    config = IndexConfig(kind="ivf_flat", num_lists=wanted)
    assert build.plan(config, num_items).num_lists == num_lists


def test_the_quantizer_is_of_unit_length_and_a_function_of_the_seed() -> None:
    sample = unit_vectors(200, 8)
    centroids = build.train_quantizer(sample, 5, 0, use_gpu=False)
    assert centroids.shape == (5, 8)
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert np.array_equal(centroids, build.train_quantizer(sample, 5, 0, use_gpu=False))
    assert not np.array_equal(centroids, build.train_quantizer(sample, 5, 1, use_gpu=False))


def test_as_many_lists_as_vectors_can_be_trained() -> None:
    assert build.train_quantizer(unit_vectors(3, 4), 3, 0, use_gpu=False).shape == (3, 4)


@pytest.mark.parametrize("num_lists", [0, 3])
def test_a_shard_holds_its_rows_and_an_empty_one_none(num_lists: int) -> None:
    vectors = unit_vectors(40, 4)
    centroids = build.train_quantizer(vectors, num_lists, 0, use_gpu=False) if num_lists else None
    rows = np.arange(40, dtype=np.int64) * 7
    full = faiss.deserialize_index(np.frombuffer(build.build_shard(vectors, rows, centroids), dtype=np.uint8))
    empty = faiss.deserialize_index(np.frombuffer(build.build_shard(vectors[:0], rows[:0], centroids), dtype=np.uint8))
    assert (full.ntotal, empty.ntotal) == (40, 0)
    assert full.search(vectors, 1)[1][:, 0].tolist() == rows.tolist()
    assert empty.search(vectors[:1], 2)[1].tolist() == [[-1, -1]]


def test_equal_input_makes_equal_bytes() -> None:
    vectors, rows = unit_vectors(30, 4), np.arange(30, dtype=np.int64)
    centroids = build.train_quantizer(vectors, 3, 0, use_gpu=False)
    for quantizer in (None, centroids):
        assert build.build_shard(vectors, rows, quantizer) == build.build_shard(vectors, rows, quantizer)
