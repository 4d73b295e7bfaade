"""FAISS indexes of the shards: one quantizer trained once, so that the shards together answer as one index would."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from raycl.config import IndexConfig

Vectors = npt.NDArray[np.float32]

FLAT_UP_TO = 50_000
_TRAIN_PER_LIST = 64


@dataclass(frozen=True)
class Plan:
    """The kind that was chosen, ``flat`` or ``ivf_flat``, its number of lists, and why."""

    kind: str
    num_lists: int
    reason: str


def plan(config: IndexConfig, num_items: int) -> Plan:
    """Choose the index for this many items."""
    kind = config.kind
    if kind == "auto":
        kind = "flat" if num_items <= FLAT_UP_TO else "ivf_flat"
    if kind == "flat":
        return Plan(kind, 0, f"{num_items:,} items: exact search ({config.kind})")
    wanted = config.num_lists or 4 * math.isqrt(num_items)
    num_lists = max(1, min(wanted, num_items // 8))
    return Plan(kind, num_lists, f"{num_items:,} items: {num_lists:,} inverted lists ({config.kind})")


def train_quantizer(sample: Vectors, num_lists: int, seed: int, *, use_gpu: bool) -> Vectors:
    """Centroids (num_lists, dim) of unit length, by spherical k-means on ``sample`` (rows, dim)."""
    kmeans = faiss.Kmeans(
        sample.shape[1],
        num_lists,
        spherical=True,
        seed=seed + 1,
        gpu=use_gpu,
        min_points_per_centroid=1,
        max_points_per_centroid=_TRAIN_PER_LIST * 4,
    )
    kmeans.train(sample)
    return np.asarray(kmeans.centroids, dtype=np.float32)


def sample_size(num_lists: int) -> int:
    """Vectors that training the quantizer asks for."""
    return num_lists * _TRAIN_PER_LIST


def build_shard(vectors: Vectors, rows: npt.NDArray[np.int64], centroids: Vectors | None) -> bytes:
    """The serialised index of one shard: inner product, vocabulary ``rows`` (n,) as ids of ``vectors`` (n, dim)."""
    dim = vectors.shape[1]
    if centroids is None:
        index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
    else:
        quantizer = faiss.IndexFlatIP(dim)
        quantizer.add(centroids)
        index = faiss.IndexIVFFlat(quantizer, dim, len(centroids), faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True
    if len(rows):
        index.add_with_ids(np.ascontiguousarray(vectors), rows)
    return bytes(faiss.serialize_index(index).tobytes())
