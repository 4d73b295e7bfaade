"""Search among some of the items alone: few are scored directly, more are left to FAISS's selectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from raycl.index.nearest import Ids, Scores, Vectors, merge_in_turn, score_all
from raycl.index.search import ShardedIndex, listed
from raycl.index.selection import Mask, Rows, Selection

DIRECT_UP_TO = 5_000
"""Items that are scored one by one, which is exact: under 1 ms a query in 64 dimensions, mostly to gather the vectors;
inverted lists that keep to a selector are faster from there on, and as good as the release's recall."""

_BY_HASH = 2
"""``DirectMap::Hashtable``: where each row lies in its list."""


class SelectiveIndex:
    """A sharded index that also searches among a selection, and that gives the vectors of its rows."""

    def __init__(self, index: ShardedIndex, num_rows: int, direct_up_to: int = DIRECT_UP_TO) -> None:
        """``num_rows``: of the vocabulary; the index holds some of them."""
        self._index, self._direct_up_to = index, direct_up_to
        self._part_of = np.full(num_rows, -1, dtype=np.int32)
        """Of each row, which part has its vector: of the stored ones, or of the shards."""
        if index.stored:
            for number, held in enumerate(index.stored):
                self._part_of[held.rows] = number
        for number, shard in enumerate(() if index.stored else index.shards):
            self._part_of[_ids(shard)] = number
            if (lists := listed(shard)) is not None:
                lists.set_direct_map_type(_BY_HASH)
        self._all = Selection(self.present)

    @property
    def present(self) -> Mask:
        """Which rows of the vocabulary have a vector, (num_rows,)."""
        return np.asarray(self._part_of >= 0)

    def selection(self, kept: Mask) -> Selection:
        """Those of the ``kept`` rows (num_rows,) that have a vector."""
        return Selection(kept & self.present)

    def vectors(self, rows: Rows) -> Vectors:
        """The vectors (rows, dim) of these rows: those that are stored, or what the index makes of its codes.

        Each row has one.
        """
        parts = self._part_of[rows]
        found = np.zeros((len(rows), self._index.dim), dtype=np.float32)
        for number in np.unique(parts):
            mine = np.flatnonzero(parts == number)
            if self._index.stored:
                found[mine] = self._index.stored[number].of(rows[mine])
            else:
                found[mine] = self._index.shards[number].reconstruct_batch(rows[mine])
        return found

    def scores(self, queries: Vectors, rows: Rows) -> Scores:
        """What each of these rows scores for each query, (num_queries, rows), as a search would score it."""
        return score_all(queries, self.vectors(rows), self._index.metric)

    def search(self, queries: Vectors, k: int | Ids, among: Selection | None = None) -> tuple[Ids, Scores]:
        """``ShardedIndex.search``; ``among`` is one that ``selection`` made.

        Among at most ``direct_up_to`` items the answer is the best by ``scores``, and so it is for a query that a graph
        cannot fill, of which parts may be out of reach: every answer is as long as it can be.
        """
        wanted = np.broadcast_to(np.asarray(k, dtype=np.int64), len(queries))
        if among is not None and among.count <= self._direct_up_to:
            return self.exactly(queries, wanted, among)
        ids, scores = self._index.search(queries, wanted, among)
        found, among = (ids >= 0).sum(1), among or self._all
        short = np.flatnonzero(found < np.minimum(wanted, among.count))
        if len(short):
            width = int(wanted[short].max())
            ids[short, :width], scores[short, :width] = self.exactly(queries[short], wanted[short], among)
        return ids, scores

    def exactly(self, queries: Vectors, wanted: Ids, among: Selection) -> tuple[Ids, Scores]:
        """The best by the scores of all, of so many items at a time."""
        width = int(np.max(wanted, initial=0))
        starts = range(0, max(among.count, 1), DIRECT_UP_TO)
        parts = (among.rows[start : start + DIRECT_UP_TO] for start in starts)
        ids, scores = merge_in_turn((self._best(queries, rows, width) for rows in parts), width)
        beyond = np.arange(width) >= wanted[:, None]
        ids[beyond], scores[beyond] = -1, -np.inf
        return ids, scores

    def _best(self, queries: Vectors, rows: Rows, k: int) -> tuple[Ids, Scores]:
        scores = self.scores(queries, rows)
        best = np.zeros((len(queries), min(k, len(rows))), dtype=np.int64)
        for place, row_scores in enumerate(scores):
            best[place] = top(row_scores, k)
        return rows[best], np.take_along_axis(scores, best, axis=1)


def top(scores: Scores, k: int) -> Rows:
    """Places of the ``k`` largest ``scores`` (n,), or of all where there are fewer; best first, ties by place."""
    if 0 < k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")][:k]


def _ids(shard: Any) -> Sequence[int] | Rows:
    if (inverted := listed(shard)) is None:
        return np.asarray(faiss.vector_to_array(shard.id_map))
    lists: Any = inverted.invlists
    sizes = [lists.list_size(number) for number in range(inverted.nlist)]
    found = [np.array(faiss.rev_swig_ptr(lists.get_ids(number), size)) for number, size in enumerate(sizes) if size]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
