"""Vectors, shards of them, and releases to damage."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from raycl import journey, lineage
from raycl.config import Config
from raycl.index import build
from raycl.index.search import Depth, Ids, ShardedIndex
from raycl.storage.manifest import FILE, Manifest
from raycl.storage.store import Store
from raycl.storage.versions import Version

Vectors = npt.NDArray[np.float32]


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


def sharded(vectors: Vectors, shards: Ids, num_shards: int, num_lists: int, nprobe: int) -> ShardedIndex:
    """``vectors`` indexed with their row numbers as ids, row ``r`` in shard ``shards[r]``; 0 lists is a flat index.

    ``nprobe`` lists are looked at for any number of items.
    """
    centroids = build.train_quantizer(vectors, num_lists, 0, use_gpu=False) if num_lists else None
    depths = [Depth(max(len(vectors), 1_000), nprobe, 1.0)]
    rows = [np.flatnonzero(shards == shard) for shard in range(num_shards)]
    return ShardedIndex.from_bytes([build.build_shard(vectors[mine], mine, centroids) for mine in rows], depths)


def built(config: Config) -> Version:
    """The release of ``config``, published or not."""
    return lineage.release(config, journey.workspace(config))


def write_consistently(store: Store, path: str, content: bytes) -> None:
    """Replace a file of a version together with its checksum, as no accident would."""
    store.write(path, content)
    manifest = Manifest.read(store)
    checksums = manifest.checksums | {path: store.sha256(path)}
    store.write(FILE, manifest.model_copy(update={"checksums": checksums}).to_bytes())
