"""FAISS indexes of the shards: one is trained and all begin as a copy of it, so that they answer as one would."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import threadpoolctl

from raycl.index.plan import Plan

Vectors = npt.NDArray[np.float32]

METRICS = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
_CHUNK, _PIECE = 1 << 20, 1 << 22
"""Bytes that are written and read at a time."""
_ROTATIONS = 16
"""Rounds in which OPQ learns its rotation: the 34 more that FAISS takes triple the time and save 1 % of the error."""
_ROUNDS, _LAST_ROUNDS = 5, 3
"""Of the k-means of the inverted lists, over half of the sample and then over all of it: what FAISS's ten over all find
at a speed, in six tenths of their time."""
_FAISS: Any = faiss
"""Its type stubs do not know all of it."""


def num_gpus() -> int:
    """GPUs that FAISS finds here; 0 with faiss-cpu."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def train(plan: Plan, sample: Vectors, seed: int, *, use_gpu: bool = False) -> Any:
    """An index without vectors, its coarse quantizer and codec learnt from ``sample`` (rows, dim).

    The k-means of the inverted lists runs on all cores, or with ``use_gpu`` on all GPUs; what comes out is an index of
    the CPU, and on cores the same one however many there are.
    """
    dim = sample.shape[1]
    index: Any = faiss.index_factory(dim, plan.factory, METRICS[plan.metric])
    inner, sample = index, np.ascontiguousarray(sample)
    turned = sample
    if isinstance(index, _FAISS.IndexPreTransform):
        inner = faiss.downcast_index(index.index)
        rotation: Any = faiss.downcast_VectorTransform(index.chain.at(0))
        # Its own, of which the warnings about a small sample can be turned off.
        codes = faiss.ProductQuantizer(rotation.d_out, rotation.M, 8)
        _quietly(codes.cp, seed)
        rotation.pq = codes
        rotation.niter = _ROTATIONS
        rotation.train(sample)
        turned = rotation.apply(sample)
    if isinstance(inner, _FAISS.IndexIVF):
        flat = _FAISS.IndexFlat(inner.d, METRICS[plan.metric])
        nearest = faiss.index_cpu_to_all_gpus(flat) if use_gpu else _on_all_cores(flat)
        inner.quantizer.add(_learnt_centroids(inner, turned, nearest, seed))
    if isinstance(inner, _FAISS.IndexIVFPQ):
        _quietly(inner.pq.cp, seed)
    if isinstance(inner, _FAISS.IndexHNSW):
        inner.hnsw.efConstruction = plan.build_depth
    if not index.is_trained:
        index.train(sample)
    return index if isinstance(inner, _FAISS.IndexIVF) else faiss.IndexIDMap2(_given_away(index))


def add(index: Any, vectors: Vectors, rows: npt.NDArray[np.int64]) -> None:
    """Add ``vectors`` (n, dim) with vocabulary ``rows`` (n,) as their ids."""
    if len(rows):
        index.add_with_ids(np.ascontiguousarray(vectors), rows)


def write(index: Any, stream: Any) -> tuple[int, str]:
    """Write the index into a stream, a piece at a time; returns its bytes and their SHA-256."""
    digest, size = hashlib.sha256(), 0

    def take(piece: bytes) -> int:
        nonlocal size
        digest.update(piece)
        stream.write(piece)
        size += len(piece)
        return len(piece)

    writer = _FAISS.PyCallbackIOWriter(take, _CHUNK)
    buffered = _FAISS.BufferedIOWriter(writer, _CHUNK)  # lists are many and short
    faiss.write_index(index, buffered)
    del buffered, writer  # which pass on what they still hold
    return size, digest.hexdigest()


def read(stream: Any) -> Any:
    """The index that ``write`` wrote; RuntimeError where ``stream`` holds none.

    It is read in pieces, so there is no memory but that of the index, and other threads run meanwhile.
    """
    failed: list[Exception] = []

    def take(size: int) -> bytes:
        try:
            return bytes(stream.read(size))
        except Exception as error:  # of which FAISS would make a RuntimeError
            failed.append(error)
            return b""

    reader = _FAISS.PyCallbackIOReader(take, _PIECE)
    try:
        return faiss.read_index(_FAISS.BufferedIOReader(reader, _PIECE))
    except RuntimeError:
        if failed:
            raise failed[0] from None
        raise


def ids(index: Any) -> npt.NDArray[np.int64]:
    """The ids that an index holds, ascending."""
    if isinstance(index, _FAISS.IndexIDMap):
        return np.sort(faiss.vector_to_array(index.id_map))
    inner: Any = faiss.downcast_index(index.index) if isinstance(index, _FAISS.IndexPreTransform) else index
    lists = inner.invlists
    found = [np.zeros(0, dtype=np.int64)]
    for number in range(lists.nlist):
        found.append(_FAISS.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).astype(np.int64))
    return np.sort(np.concatenate(found))


@contextlib.contextmanager
def all_threads() -> Iterator[None]:
    """Within it FAISS uses every core that this process may: for a task that no other runs beside.

    Its matrix products too, whose library took the one thread that Ray gives to a worker when it was loaded.
    """
    with threadpoolctl.threadpool_limits(len(os.sched_getaffinity(0))):
        yield


def _on_all_cores(flat: Any) -> Any:
    """An empty index like ``flat`` whose searches give each core a run of the queries.

    FAISS's own threads share one matrix product after the other, which two cores do in two thirds of the time of one,
    where this takes half.
    """
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(faiss.omp_get_max_threads()))
    thread.start()  # a new thread has the threads of the process's environment, as those of the search will
    thread.join()
    replicas = _FAISS.IndexReplicas(flat.d, True)
    for _ in range(max(len(os.sched_getaffinity(0)) // found[0], 1)):
        replicas.add_replica(_given_away(faiss.clone_index(flat)))
    replicas.own_indices = True
    return replicas


def _learnt_centroids(lists: Any, sample: Vectors, nearest: Any, seed: int) -> Vectors:
    """The centroids (nlist, dim) of the inverted lists, learnt from ``sample`` with the index ``nearest``."""
    drawn = np.random.default_rng(seed).permutation(len(sample))[: max(round(len(sample) / 2), lists.nlist)]
    centroids: Vectors = np.zeros((0, lists.d), dtype=np.float32)
    _quietly(lists.cp, seed)
    for part, rounds in ((sample[np.sort(drawn)], _ROUNDS), (sample, _LAST_ROUNDS)):
        lists.cp.niter = rounds
        clustering = faiss.Clustering(lists.d, lists.nlist, lists.cp)
        faiss.copy_array_to_vector(centroids.ravel(), clustering.centroids)  # where it begins, if there are any
        clustering.train(part, nearest)
        centroids = faiss.vector_to_array(clustering.centroids).reshape(-1, lists.d)
    return centroids


def _quietly(clustering: Any, seed: int) -> None:
    clustering.seed = seed + 1
    clustering.min_points_per_centroid = 1


def _given_away(index: Any) -> Any:
    """``index``, which from now on belongs to the one that is made of it."""
    index.this.disown()
    return index
