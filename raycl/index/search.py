"""Search over shards: each answers alone, and the answers are merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


def merge(ids: Ids, scores: Scores, k: int) -> tuple[Ids, Scores]:
    """Merge shard answers of shape (num_shards, num_queries, shard_k) into (num_queries, k), best first.

    An id of -1 is FAISS's "no more neighbours": it never wins, and fills up with a score of -inf where there are fewer
    than ``k``. Ties go to the smaller id, so the answer does not depend on which shard replied first.
    """
    num_queries = ids.shape[1]
    flat_ids = ids.transpose(1, 0, 2).reshape(num_queries, -1)
    flat_scores = scores.transpose(1, 0, 2).reshape(num_queries, -1)
    flat_scores = np.where(flat_ids < 0, -np.inf, flat_scores).astype(np.float32)
    order = np.lexsort((flat_ids, -flat_scores), axis=1)[:, :k]
    merged_ids = np.take_along_axis(flat_ids, order, axis=1)
    merged_scores = np.take_along_axis(flat_scores, order, axis=1)
    short = k - merged_ids.shape[1]
    if short > 0:
        merged_ids = np.pad(merged_ids, ((0, 0), (0, short)), constant_values=-1)
        merged_scores = np.pad(merged_scores, ((0, 0), (0, short)), constant_values=-np.inf)
    return merged_ids, merged_scores


class ShardedIndex:
    """All shards of a release in one process."""

    def __init__(self, shards: Sequence[Any], nprobe: int) -> None:
        """``shards``: FAISS indexes; ``nprobe`` inverted lists are looked at in each (flat ones know no lists)."""
        self._shards = tuple(shards)
        self.nprobe = nprobe
        for shard in self._shards:
            if isinstance(shard, faiss.IndexIVF):
                shard.nprobe = nprobe

    @classmethod
    def from_bytes(cls, shards: Sequence[bytes], nprobe: int) -> ShardedIndex:
        """Read shards that ``build_shard`` serialised; the caller has checked their checksums."""
        return cls([faiss.deserialize_index(np.frombuffer(shard, dtype=np.uint8)) for shard in shards], nprobe)

    def __len__(self) -> int:
        return sum(int(shard.ntotal) for shard in self._shards)

    def search(self, queries: npt.NDArray[np.float32], k: int) -> tuple[Ids, Scores]:
        """Ids and scores (num_queries, k) of the nearest by inner product, best first; -1 where there are no more."""
        answers = [shard.search(queries, k) for shard in self._shards]
        return merge(np.stack([ids for _, ids in answers]), np.stack([scores for scores, _ in answers]), k)


def exact(vectors: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], k: int) -> Ids:
    """Rows (num_queries, k) of the nearest ``vectors`` by inner product: what an index is measured against."""
    _, rows = faiss.knn(queries, vectors, min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(rows)


def recall(found: Ids, truth: Ids) -> float:
    """Share of ``truth`` (num_queries, k) that is in ``found`` (num_queries, any), order aside."""
    hits = sum(int(np.isin(truth[row], found[row]).sum()) for row in range(len(truth)))
    return hits / max(truth.size, 1)


def tune(
    index: ShardedIndex, num_lists: int, queries: npt.NDArray[np.float32], truth: Ids, target: float
) -> tuple[int, float]:
    """The smallest power of two of lists to probe whose recall reaches ``target``, else all; with the recall it has."""
    probe = 1
    while True:
        tried = ShardedIndex(index._shards, min(probe, max(num_lists, 1)))
        reached = recall(tried.search(queries, truth.shape[1])[0], truth)
        if reached >= target or tried.nprobe >= num_lists:
            return tried.nprobe, reached
        probe *= 2
