"""Vectors, shards of them, and releases to damage."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from raycl import journey, lineage
from raycl.config import Config, IndexConfig
from raycl.index import build, stored
from raycl.index.nearest import Ids
from raycl.index.plan import Plan, choose
from raycl.index.search import Depth, ShardedIndex
from raycl.storage.manifest import FILE, Manifest
from raycl.storage.store import Store
from raycl.storage.versions import Version

Vectors = npt.NDArray[np.float32]

SCANNED = ["flat", "sq8", "ivf_flat", "ivf_sq8", "ivf_pq"]
COMPRESSED = ["sq8", "ivf_sq8", "ivf_pq"]


def unit_vectors(rows: int, dim: int, seed: int = 0) -> Vectors:
    """Random directions (rows, dim)."""
    drawn = np.random.default_rng(seed).normal(size=(rows, dim))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


def clustered(rows: int, dim: int, num_clusters: int, seed: int = 0) -> Vectors:
    """Directions (rows, dim) in tight clusters, as a catalogue of genres has them."""
    generator = np.random.default_rng(seed)
    centres = unit_vectors(num_clusters, dim, seed + 1)
    drawn = centres[generator.integers(0, num_clusters, rows)] + 0.05 * generator.normal(size=(rows, dim))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


def plan_of(kind: str, rows: int, dim: int, *, metric: str = "inner_product", rerank: str = "never") -> Plan:
    """An index of this kind of 9 lists, codes of half a byte a number and 16 links, for so many rows."""
    config: dict[str, Any] = {"kind": kind, "metric": metric, "rerank": rerank}
    return choose(IndexConfig(**config, num_lists=9, pq_bytes=dim // 2, hnsw_links=16), rows, dim, 0.95)


def sharded(vectors: Vectors, shards: Ids, num_shards: int, num_lists: int, nprobe: int) -> ShardedIndex:
    """``vectors`` indexed with their row numbers as ids, row ``r`` in shard ``shards[r]``; 0 lists is a flat index.

    ``nprobe`` lists are looked at for any number of items.
    """
    config = IndexConfig(kind="ivf_flat" if num_lists else "flat", num_lists=num_lists or None)
    chosen = replace(choose(config, 8 * max(num_lists, len(vectors)), vectors.shape[1], 0.9), rerank=False)
    return of_plan(chosen, vectors, shards, num_shards, [Depth(max(len(vectors), 1_000), nprobe, 1.0)])


def trained_on(plan: Plan, vectors: Vectors) -> bytes:
    """The empty index that shards begin with."""
    content = io.BytesIO()
    build.write(build.train(plan, vectors, 0), content)
    return content.getvalue()


def of_plan(
    plan: Plan,
    vectors: Vectors,
    shards: Ids,
    num_shards: int,
    depths: Sequence[Depth] = (),
    parts: int = 1,
    trained: bytes | None = None,
) -> ShardedIndex:
    """``vectors`` as ``plan`` says, row ``r`` in shard ``shards[r]``, added in so many parts and read from bytes.

    What all shards begin with is ``trained``, or else learnt from the vectors themselves.
    """
    trained = trained or trained_on(plan, vectors)
    made, kept = [], []
    for shard in range(num_shards):
        index, rows = build.read(io.BytesIO(trained)), np.flatnonzero(shards == shard)
        pieces = [(some, vectors[some]) for some in np.array_split(rows, parts)]
        for some, piece in pieces:
            build.add(index, piece, some)
        content, exact = io.BytesIO(), io.BytesIO()
        build.write(index, content)
        stored.write(exact, pieces, vectors.shape[1])
        made.append(build.read(io.BytesIO(content.getvalue())))
        kept.append(stored.Stored.from_bytes(exact.getvalue()))
    return ShardedIndex(made, depths, kept if plan.rerank else ())


def built(config: Config) -> Version:
    """The release of ``config``, published or not."""
    return lineage.release(config, journey.workspace(config))


def write_consistently(store: Store, path: str, content: bytes) -> None:
    """Replace a file of a version together with its checksum, as no accident would."""
    store.write(path, content)
    manifest = Manifest.read(store)
    checksums = manifest.checksums | {path: store.sha256(path)}
    store.write(FILE, manifest.model_copy(update={"checksums": checksums}).to_bytes())
