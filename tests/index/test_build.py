"""What all shards begin with, what one of them holds, and its bytes."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import pytest
import threadpoolctl

from raycl.config import IndexConfig
from raycl.index import build
from raycl.index.nearest import exact, recall
from raycl.index.plan import Plan, choose
from tests.index.builders import trained_on, unit_vectors

KINDS = ["flat", "hnsw", "sq8", "ivf_flat", "ivf_sq8", "ivf_pq"]


def plan_of(kind: str, num_items: int = 300, **config: Any) -> Plan:
    given = {"kind": kind, "num_lists": 5, "hnsw_links": 8, **config}
    return choose(IndexConfig.model_validate(given), num_items, 8, 0.95)


def centroids(index: Any) -> Any:
    return index.quantizer.reconstruct_n(0, index.nlist)


def test_the_quantizer_is_of_unit_length_and_a_function_of_the_seed() -> None:
    sample = unit_vectors(200, 8)
    found = centroids(build.train(plan_of("ivf_flat"), sample, 0))
    assert found.shape == (5, 8)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert np.array_equal(found, centroids(build.train(plan_of("ivf_flat"), sample, 0)))
    assert not np.array_equal(found, centroids(build.train(plan_of("ivf_flat"), sample, 1)))


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
def test_many_cores_learn_the_lists_that_one_learns(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sample, plan = unit_vectors(3_000, 8), plan_of("ivf_flat", metric=metric, num_lists=40)
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(64 * cores)))
        monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: 64)
        found.append(centroids(build.train(plan, sample, 0)))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
def test_lists_find_what_those_of_faiss_find_for_as_many_comparisons(metric: str) -> None:
    """Comparisons a query are those with all vectors of the lists that it looks into."""
    vectors, queries = unit_vectors(20_000, 16), unit_vectors(300, 16, 1)
    plan = plan_of("ivf_flat", 20_000, metric=metric, num_lists=200)
    theirs: Any = faiss.index_factory(16, plan.factory, build.METRICS[metric])
    theirs.train(vectors)
    best, _ = exact(vectors, queries, 50, metric)
    mine, peer = (_found_for(index, vectors, queries, best) for index in (build.train(plan, vectors, 0), theirs))
    done, shares = zip(*mine, strict=True)
    at_as_many = np.interp([done for done, _ in peer], done, shares)
    assert (at_as_many >= np.array([share for _, share in peer]) - 0.02).all()


def _found_for(index: Any, vectors: Any, queries: Any, best: Any) -> list[tuple[float, float]]:
    """Comparisons a query and recall, by how many lists are looked into."""
    build.add(index, vectors, np.arange(len(vectors)))
    everywhere: Any = faiss.cvar
    done = everywhere.indexIVF_stats
    points = []
    for index.nprobe in (1, 2, 4, 8):
        before = done.ndis
        share = recall(np.asarray(index.search(queries, 50)[1]), best)
        points.append(((done.ndis - before) / len(queries), share))
    return points


def test_as_many_lists_as_vectors_can_be_trained() -> None:
    plan = replace(plan_of("ivf_flat"), factory="IVF3,Flat", num_lists=3)
    assert centroids(build.train(plan, unit_vectors(3, 4), 0)).shape == (3, 4)


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_holds_its_rows_and_an_empty_one_none(kind: str, metric: str) -> None:
    vectors, rows = unit_vectors(300, 8), np.arange(300, dtype=np.int64) * (1 << 33)
    empty = trained_on(plan_of(kind, metric=metric), vectors)
    index = build.read(io.BytesIO(empty))
    build.add(index, vectors[:0], rows[:0])
    assert index.search(vectors[:1], 2)[1].tolist() == [[-1, -1]]
    build.add(index, vectors[:100], rows[:100])
    build.add(index, vectors[100:], rows[100:])
    content = io.BytesIO()
    size, digest = build.write(index, content)
    assert (size, digest) == (len(content.getvalue()), hashlib.sha256(content.getvalue()).hexdigest())
    full = build.read(io.BytesIO(content.getvalue()))
    assert (build.read(io.BytesIO(empty)).ntotal, full.ntotal) == (0, 300)
    assert full.metric_type == build.METRICS[metric]
    nearest = full.search(vectors, 1)[1][:, 0]
    assert (nearest == rows).mean() > (0.6 if kind == "ivf_pq" else 0.95)
    assert set(nearest.tolist()) <= set(rows.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_equal_input_makes_equal_bytes(kind: str) -> None:
    vectors, rows = unit_vectors(300, 8), np.arange(300, dtype=np.int64)
    contents = []
    for _ in range(2):
        index = build.train(plan_of(kind), vectors, 0)
        build.add(index, vectors, rows)
        contents.append(io.BytesIO())
        build.write(index, contents[-1])
    assert contents[0].getvalue() == contents[1].getvalue()


def test_a_graph_is_built_as_deep_as_the_plan_says() -> None:
    index = build.train(plan_of("hnsw", hnsw_build_depth=77), unit_vectors(0, 8), 0)
    inner: Any = faiss.downcast_index(index.index)
    assert inner.hnsw.efConstruction == 77


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_read_in_pieces_as_it_was_written(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_PIECE", 1_000)
    vectors, content, again = unit_vectors(300, 8), io.BytesIO(), io.BytesIO()
    index = build.read(io.BytesIO(trained_on(plan_of(kind), vectors)))
    build.add(index, vectors, np.arange(300, dtype=np.int64))
    build.write(index, content)
    build.write(build.read(io.BytesIO(content.getvalue())), again)
    assert again.getvalue() == content.getvalue()


def test_what_is_no_index_cannot_be_read() -> None:
    content = trained_on(plan_of("flat"), unit_vectors(10, 8))
    for broken in (b"", b"not an index", content[: len(content) // 2]):
        with pytest.raises(RuntimeError):
            build.read(io.BytesIO(broken))


def test_a_stream_that_fails_half_way_is_not_taken_for_a_broken_index() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        build.read(Failing())


@pytest.mark.requires_gpu
@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_sq8", "ivf_pq"])
def test_what_a_gpu_trained_answers_like_what_the_cpu_trained(kind: str, metric: str) -> None:
    if not build.num_gpus():
        pytest.skip("FAISS finds no GPU here")
    vectors, queries = unit_vectors(5_000, 8), unit_vectors(50, 8, 1)
    plan = plan_of(kind, 5_000, metric=metric)
    found = []
    for use_gpu in (False, True):
        index = build.train(plan, vectors, 0, use_gpu=use_gpu)
        build.add(index, vectors, np.arange(5_000))
        content = io.BytesIO()
        build.write(index, content)
        read = build.read(io.BytesIO(content.getvalue()))
        faiss.ParameterSpace().set_index_parameter(read, "nprobe", 5)
        found.append(read.search(queries, 20)[1])
    alike = np.mean([len(set(one) & set(other)) / 20 for one, other in zip(*found, strict=True)])
    assert alike > (0.7 if kind == "ivf_pq" else 0.95)


def test_what_runs_alone_has_every_core_for_its_loops_and_its_matrix_products() -> None:
    """A worker of Ray is given one thread, and keeps it afterwards."""

    def threads() -> list[int]:
        return [one["num_threads"] for one in threadpoolctl.threadpool_info()]

    cores = len(os.sched_getaffinity(0))
    with threadpoolctl.threadpool_limits(1):
        with build.all_threads():
            assert set(threads()) == {cores}
        assert set(threads()) == {1}
