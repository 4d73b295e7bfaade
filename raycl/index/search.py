"""Search over shards: each answers alone, the answers are merged, and the search goes as deep as the answer needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import faiss
import numpy as np

from raycl.index.nearest import Ids, Scores, Vectors, merge, put_in_order
from raycl.index.selection import Selection
from raycl.index.stored import Stored

_SEVERAL = 8
"""Queries for which matrix products pay."""
_PRODUCTS = 1 << 22
"""Of queries and centroids, in memory at a time."""
_FAISS: Any = faiss
"""Its type stubs do not know all of it."""


@dataclass(frozen=True)
class Depth:
    """How deep to search for up to ``k`` items; that finds this ``recall`` of the exact answers."""

    k: int
    nprobe: int
    """Inverted lists that are looked at, in each shard the same ones."""
    recall: float
    ef: int = 0
    """Of a graph: candidates kept on the way through each shard."""
    candidates: int = 0
    """Best items of all shards by their codes that are put in order by the stored vectors."""

    @property
    def effort(self) -> int:
        """The one of ``nprobe`` and ``ef`` that the index knows."""
        return self.ef or self.nprobe


class Asked(NamedTuple):
    """Queries as the shards understand them, with what all shards have in common worked out once."""

    queries: Vectors
    lists: Ids | None
    """Of an index of inverted lists: (num_queries, nprobe), the nearest first."""
    distances: Scores | None
    """To their centroids."""
    ef: int
    selector: Any
    """FAISS's word for what may be found; None for all."""


class ShardedIndex:
    """All shards of a release in one process; searches may run in several threads at once."""

    def __init__(self, shards: Sequence[Any], depths: Sequence[Depth], stored: Sequence[Stored] = ()) -> None:
        """``shards``: FAISS indexes; ``depths``: how deep to search them; ``stored``: their vectors, to re-rank by.

        Stored vectors may be in more parts than the shards. ValueError where they are not those of their shard.
        """
        self._shards, self._stored = tuple(shards), tuple(stored)
        self.depths = tuple(sorted(depths, key=lambda depth: depth.k))
        if len(self._shards) == len(self._stored):
            for number, (shard, held) in enumerate(zip(self._shards, self._stored, strict=True)):
                if int(shard.ntotal) != len(held):
                    raise ValueError(f"shard {number} has {shard.ntotal} items and {len(held)} stored vectors")
        elif self._stored and len(self) != sum(map(len, self._stored)):
            raise ValueError(f"all shards have {len(self)} items and {sum(map(len, self._stored))} stored vectors")
        self._lists = [found for shard in self._shards if (found := listed(shard)) is not None]
        self._centroids = _centroids(self._lists[0]) if self._lists else None
        self.num_lists = max((int(one.nlist) for one in self._lists), default=0)
        self.is_graph = any(_is_graph(shard) for shard in self._shards)
        largest = max((int(shard.ntotal) for shard in self._shards), default=0)
        self.most_effort = self.num_lists or (largest if self.is_graph else 0)
        self.whole: int | None = None
        """Items of the index of which these shards are a part; None where they are all of it."""
        self.metric = "l2" if any(shard.metric_type == faiss.METRIC_L2 for shard in self._shards) else "inner_product"

    @property
    def shards(self) -> tuple[Any, ...]:
        """The FAISS index of each shard; ids are rows of the vocabulary."""
        return self._shards

    @property
    def stored(self) -> tuple[Stored, ...]:
        """The vectors, of each shard as it was built, that answers are re-ranked by; none where they are not."""
        return self._stored

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self._shards[0].d)

    def __len__(self) -> int:
        return sum(int(shard.ntotal) for shard in self._shards)

    def search(self, queries: Vectors, k: int | Ids, among: Selection | None = None) -> tuple[Ids, Scores]:
        """Ids and scores (num_queries, largest k) of the nearest, best first; with ``among`` of those that it keeps.

        ``k`` is one number, or one a query; a row is -1 and -inf from its own k on. The search goes as deep as
        ``depths`` says for that k, in proportion beyond the largest, and twice as deep again for a query that finds too
        few, so a row ends early only where the index does, or a graph of which parts are out of reach. What a query
        finds does not depend on the others, but for the last bits of distances to lists.
        """
        wanted = np.broadcast_to(np.asarray(k, dtype=np.int64), len(queries))
        if not len(queries):
            width = int(np.max(k, initial=0))
            return np.zeros((0, width), dtype=np.int64), np.zeros((0, width), dtype=np.float32)
        available = len(self) if among is None else among.count
        efforts, candidates = self._depths(wanted, available)
        ids, scores = self._probed(queries, wanted, efforts, candidates, among)
        rows = np.arange(len(queries))
        while True:
            short = (ids[rows] >= 0).sum(1) < np.minimum(wanted[rows], available)
            rows = rows[short & (efforts[rows] < self.most_effort)]
            if not len(rows):
                break
            efforts[rows] = np.minimum(2 * efforts[rows], self.most_effort)
            more = self._probed(queries[rows], wanted[rows], efforts[rows], candidates[rows], among)
            width = more[0].shape[1]
            ids[rows, :width], scores[rows, :width] = more
        if int(wanted.min()) < ids.shape[1]:
            beyond = np.arange(ids.shape[1]) >= wanted[:, None]
            ids[beyond], scores[beyond] = -1, -np.inf
        return ids, scores

    def _probed(
        self, queries: Vectors, wanted: Ids, efforts: Ids, candidates: Ids, among: Selection | None
    ) -> tuple[Ids, Scores]:
        """What ``probe`` answers each query by its own effort and candidates, (num_queries, most that one wants)."""
        width = int(wanted.max(initial=0))
        alike = set(zip(efforts.tolist(), candidates.tolist(), strict=True))
        if len(alike) == 1:
            return self.probe(queries, width, *alike.pop(), among)
        ids = np.full((len(queries), width), -1, dtype=np.int64)
        scores = np.full((len(queries), width), -np.inf, dtype=np.float32)
        for effort, most in alike:
            mine = np.flatnonzero((efforts == effort) & (candidates == most))
            deepest = int(wanted[mine].max())
            ids[mine, :deepest], scores[mine, :deepest] = self.probe(queries[mine], deepest, effort, most, among)
        return ids, scores

    def probe(
        self, queries: Vectors, k: int, effort: int, candidates: int = 0, among: Selection | None = None
    ) -> tuple[Ids, Scores]:
        """Ids and scores (num_queries, k) by this effort and no more; -1 where that finds no more.

        ``effort`` is lists of each shard, or candidates on the way through a graph; as many ``candidates``, where there
        are stored vectors, are put in order by them, all of them of ``among``.
        """
        width = max(k, candidates) if self._stored else k
        found, scores = self.candidates(queries, width, effort, among)
        if not self._stored or not candidates:
            return found, scores
        return merge(found[None], self.exact_scores(queries, found)[None], k)

    def candidates(self, queries: Vectors, k: int, effort: int, among: Selection | None = None) -> tuple[Ids, Scores]:
        """The best ``k`` of all shards by what their indexes hold, (num_queries, k)."""
        answers = list(self.by_codes(queries, k, effort, among))
        if len(answers) == 1:
            return put_in_order(*answers[0])
        ids, scores = (np.stack(parts) for parts in zip(*answers, strict=True))
        return merge(ids, scores, k)

    def by_codes(
        self, queries: Vectors, k: int, effort: int, among: Selection | None = None
    ) -> Iterator[tuple[Ids, Scores]]:
        """What each shard answers by what its index holds, (num_queries, k); at least one answer."""
        asked = self._ask(queries, effort, among)
        for shard in self._shards:
            width = min(self._width(shard, k), k) if among is None else k  # a shard may hold all that is kept
            scores, ids = _answer(shard, asked, width)
            if width < k:
                ids = np.pad(ids, ((0, 0), (0, k - width)), constant_values=-1)
                scores = np.pad(scores, ((0, 0), (0, k - width)))
            yield ids, scores

    def exact_scores(self, queries: Vectors, ids: Ids) -> Scores:
        """Scores (num_queries, any) of ``ids`` by the stored vectors; -inf for an id that is not held here."""
        scores = np.full(ids.shape, -np.inf, dtype=np.float32)
        for held in self._stored:
            held.score(queries, ids, scores, self.metric)
        return scores

    def _ask(self, queries: Vectors, effort: int, among: Selection | None) -> Asked:
        selector = None if among is None else among.selector
        if not self._lists:
            return Asked(queries, None, None, effort if self.is_graph else 0, selector)
        shard: Any = self._shards[0]
        turned = shard.chain.at(0).apply(queries) if isinstance(shard, _FAISS.IndexPreTransform) else queries
        distances, lists = self._nearest_lists(turned, min(effort, self.num_lists))
        return Asked(turned, lists, distances, 0, selector)

    def _nearest_lists(self, queries: Vectors, nprobe: int) -> tuple[Scores, Ids]:
        """Distances to the centroids of the nearest lists, and those lists, each (num_queries, nprobe).

        Inner products of several queries are matrix products, twice as fast as FAISS, which takes queries one by one
        below 128,000.
        """
        quantizer, centroids = self._lists[0].quantizer, self._centroids
        if centroids is None or len(queries) < _SEVERAL:
            return cast("tuple[Scores, Ids]", quantizer.search(queries, nprobe))
        found = []
        at_once = max(_PRODUCTS // len(centroids), 1)
        for first in range(0, len(queries), at_once):
            near = queries[first : first + at_once] @ centroids.T
            best = faiss.ResultHeap(len(near), nprobe, keep_max=True)
            best.heaps.addn(near.shape[1], faiss.swig_ptr(near))
            best.finalize()
            found.append((best.D, best.I))
        distances, lists = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return distances, lists

    def _width(self, shard: Any, k: int) -> int:
        """How many of the best ``k`` a shard is asked for.

        Items fall to shards by a hash, so of the best k one shard has a share, and more than 6 deviations above it in
        one of a billion answers. A graph, whose answer is not exact anyway, is spared the rest; one that is asked for
        more than it holds, or for all that there is, gives all.
        """
        total = self.whole or len(self)
        if not self.is_graph or int(shard.ntotal) == total or not total:
            return k
        share = k * int(shard.ntotal) / total
        return math.ceil(share + 6 * math.sqrt(share)) + 6

    def _depths(self, wanted: Ids, available: int) -> tuple[Ids, Ids]:
        """Effort to begin with and candidates, each (num_queries,), where so many items may be found."""
        found = np.array([self._depth(k, available) for k in wanted.tolist()], dtype=np.int64).reshape(-1, 2)
        return found[:, 0].copy(), found[:, 1].copy()

    def _depth(self, wanted: int, available: int) -> tuple[int, int]:
        """Effort and candidates for so many items; in proportion beyond the largest depth.

        Where not all items may be found the others are passed over, so that the wanted ones lie as deep as more would
        among all.
        """
        if not self.depths:
            return self.most_effort, 0
        deep = -(-wanted * len(self) // max(available, 1))
        of_effort, of_candidates = self._reaching(deep), self._reaching(wanted)
        effort = of_effort.effort * max(-(-deep // self.depths[-1].k), 1)
        return min(effort, self.most_effort), of_candidates.candidates * max(-(-wanted // self.depths[-1].k), 1)

    def _reaching(self, k: int) -> Depth:
        return next((depth for depth in self.depths if depth.k >= k), self.depths[-1])


def listed(shard: Any) -> Any:
    """The inverted lists of a FAISS index, or None."""
    inner = shard.index if isinstance(shard, _FAISS.IndexPreTransform) else shard
    found = faiss.downcast_index(inner)
    return found if isinstance(found, _FAISS.IndexIVF) else None


def _centroids(lists: Any) -> Vectors | None:
    """The centroids (nlist, dim), where a query's products with all of them are what is searched by.

    A view, which holds as long as the index.
    """
    flat: Any = faiss.downcast_index(lists.quantizer)
    if not isinstance(flat, _FAISS.IndexFlat) or flat.metric_type != faiss.METRIC_INNER_PRODUCT:
        return None
    return cast("Vectors", _FAISS.rev_swig_ptr(flat.get_xb(), lists.nlist * flat.d).reshape(-1, flat.d))


def _is_graph(shard: Any) -> bool:
    return isinstance(shard, faiss.IndexIDMap) and isinstance(faiss.downcast_index(shard.index), faiss.IndexHNSW)


def _answer(shard: Any, asked: Asked, k: int) -> tuple[Scores, Ids]:
    """What one shard finds: scores, of which more is better, and ids."""
    if asked.lists is None:
        how = _FAISS.SearchParametersHNSW(efSearch=max(asked.ef, k)) if asked.ef else _FAISS.SearchParameters()
        how.sel = asked.selector
        scores, ids = shard.search(asked.queries, k, params=how)
    else:
        scores, ids = _in_lists(listed(shard), asked, k)
    return (-scores if shard.metric_type == faiss.METRIC_L2 else scores), ids


def _in_lists(shard: Any, asked: Asked, k: int) -> tuple[Scores, Ids]:
    """FAISS's search within these lists; its wrapper takes only as many lists as the index itself would look at."""
    queries, lists = np.ascontiguousarray(asked.queries), np.ascontiguousarray(asked.lists)
    distances = np.ascontiguousarray(asked.distances)
    scores, ids = np.empty((len(queries), k), dtype=np.float32), np.empty((len(queries), k), dtype=np.int64)
    how = _FAISS.SearchParametersIVF(nprobe=lists.shape[1])
    how.sel = asked.selector
    shard.search_preassigned_c(
        len(queries),
        *map(faiss.swig_ptr, (queries,)),
        k,
        *map(faiss.swig_ptr, (lists, distances, scores, ids)),
        False,
        how,
    )
    return scores, ids
