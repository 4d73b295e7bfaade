"""Search over shards: each answers alone, the answers are merged, and lists are probed as deep as the answer needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from raycl.index.selection import Selection

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Depth:
    """Up to ``k`` wanted items, ``nprobe`` inverted lists of each shard are looked at; that finds this ``recall``."""

    k: int
    nprobe: int
    recall: float


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


def merge_in_turn(answers: Iterable[tuple[Ids, Scores]], k: int) -> tuple[Ids, Scores]:
    """``merge`` of answers (num_queries, k) of which two are in memory at a time; there is at least one."""
    rest = iter(answers)
    best = next(rest)
    for ids, scores in rest:
        best = merge(np.stack([best[0], ids]), np.stack([best[1], scores]), k)
    return best


class ShardedIndex:
    """All shards of a release in one process; searches may run in several threads at once."""

    def __init__(self, shards: Sequence[Any], depths: Sequence[Depth]) -> None:
        """``shards``: FAISS indexes; ``depths``: how deep inverted lists are probed (flat shards know no lists)."""
        self._shards = tuple(shards)
        self.depths = tuple(sorted(depths, key=lambda depth: depth.k))
        lists = [int(shard.nlist) for shard in self._shards if isinstance(shard, faiss.IndexIVF)]
        self.num_lists = max(lists, default=0)

    @classmethod
    def from_bytes(cls, shards: Sequence[bytes], depths: Sequence[Depth]) -> ShardedIndex:
        """Read shards that ``build_shard`` serialised; the caller has checked their checksums."""
        return cls([faiss.deserialize_index(np.frombuffer(shard, dtype=np.uint8)) for shard in shards], depths)

    @property
    def shards(self) -> tuple[Any, ...]:
        """The FAISS index of each shard; ids are rows of the vocabulary."""
        return self._shards

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self._shards[0].d)

    def __len__(self) -> int:
        return sum(int(shard.ntotal) for shard in self._shards)

    def search(self, queries: Vectors, k: int | Ids, among: Selection | None = None) -> tuple[Ids, Scores]:
        """Ids and scores (num_queries, largest k) of the nearest by inner product, best first.

        ``k`` is one number, or one a query; a row is -1 and -inf from its own k on. Lists are probed as ``depths`` says
        for that k, in proportion beyond the largest, and twice as many again for a query that finds too few, so a row
        ends early only where the index does. What a query finds does not depend on the others.
        """
        wanted = np.broadcast_to(np.asarray(k, dtype=np.int64), len(queries))
        width = int(np.max(k, initial=0))
        ids = np.full((len(queries), width), -1, dtype=np.int64)
        scores = np.full((len(queries), width), -np.inf, dtype=np.float32)
        available = len(self) if among is None else among.count
        probes = self._probes(wanted if not available else -(-wanted * len(self) // available))
        rows = np.arange(len(queries))
        while len(rows):
            for nprobe in np.unique(probes[rows]):
                mine = rows[probes[rows] == nprobe]
                deepest = int(wanted[mine].max())
                ids[mine, :deepest], scores[mine, :deepest] = self.probe(queries[mine], deepest, int(nprobe), among)
            short = (ids[rows] >= 0).sum(1) < np.minimum(wanted[rows], available)
            rows = rows[short & (probes[rows] < self.num_lists)]
            probes[rows] = np.minimum(2 * probes[rows], self.num_lists)
        beyond = np.arange(width) >= wanted[:, None]
        ids[beyond], scores[beyond] = -1, -np.inf
        return ids, scores

    def probe(self, queries: Vectors, k: int, nprobe: int, among: Selection | None = None) -> tuple[Ids, Scores]:
        """Ids and scores (num_queries, k) from ``nprobe`` lists of each shard and no more; -1 where those end."""
        how: Any = None
        if self.num_lists:
            how = faiss.SearchParametersIVF()
            how.nprobe = nprobe
        elif among is not None:
            how = faiss.SearchParameters()
        if among is not None:
            how.sel = among.selector
        answers = [shard.search(queries, k, params=how) for shard in self._shards]
        return merge(np.stack([ids for _, ids in answers]), np.stack([scores for scores, _ in answers]), k)

    def _probes(self, wanted: Ids) -> Ids:
        """Lists to begin with, (num_queries,)."""
        if not self.num_lists or not self.depths:
            return np.full(len(wanted), self.num_lists, dtype=np.int64)
        ks = np.array([depth.k for depth in self.depths])
        nprobes = np.array([depth.nprobe for depth in self.depths])
        measured: Ids = nprobes[np.minimum(np.searchsorted(ks, wanted), len(ks) - 1)]
        probes: Ids = np.minimum(measured * np.maximum(-(-wanted // ks[-1]), 1), self.num_lists)
        return probes


def exact(vectors: Vectors, queries: Vectors, k: int) -> tuple[Ids, Scores]:
    """Rows and scores (num_queries, k) of the nearest ``vectors``: what an index is measured against.

    By inner product, best first, and -1 where there are no more.
    """
    if not len(vectors):
        return np.full((len(queries), k), -1, dtype=np.int64), np.full((len(queries), k), -np.inf, dtype=np.float32)
    scores, rows = faiss.knn(queries, vectors, min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    return merge(np.asarray(rows)[None], np.asarray(scores)[None], k)


def hits(found: Ids, truth: Ids) -> int:
    """How many of ``truth`` (num_queries, k) are in the same row of ``found`` (num_queries, any), order aside."""
    return sum(int(np.isin(truth[row], found[row]).sum()) for row in range(len(truth)))


def recall(found: Ids, truth: Ids) -> float:
    """Share of ``truth`` (num_queries, k) that is in ``found`` (num_queries, any), order aside."""
    return hits(found, truth) / max(truth.size, 1)


def tune(
    measure: Callable[[int], Sequence[float]], ks: Sequence[int], num_lists: int, target: float
) -> tuple[Depth, ...]:
    """For each of the ascending ``ks`` the smallest power of two of lists whose recall reaches ``target``, else all.

    ``measure`` tells the recall at each of ``ks`` for a number of lists; it is asked once a number. More items never
    get fewer lists.
    """
    nprobe, reached = 1, measure(1)
    found = []
    for place, k in enumerate(ks):
        while reached[place] < target and nprobe < num_lists:
            nprobe = min(2 * nprobe, num_lists)
            reached = measure(nprobe)
        found.append(Depth(k, nprobe, reached[place]))
    return tuple(found)
