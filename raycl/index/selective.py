"""Search among some of the items alone: few are scored directly, more are left to FAISS's selectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from raycl.index.search import Ids, Scores, ShardedIndex, Vectors
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
        self._shard_of = np.full(num_rows, -1, dtype=np.int32)
        for number, shard in enumerate(index.shards):
            self._shard_of[_ids(shard)] = number
            if isinstance(shard, faiss.IndexIVF):
                shard.set_direct_map_type(_BY_HASH)

    @property
    def present(self) -> Mask:
        """Which rows of the vocabulary have a vector, (num_rows,)."""
        return np.asarray(self._shard_of >= 0)

    def selection(self, kept: Mask) -> Selection:
        """Those of the ``kept`` rows (num_rows,) that have a vector."""
        return Selection(kept & self.present)

    def vectors(self, rows: Rows) -> Vectors:
        """The vectors (rows, dim) of these rows, as the index keeps them; each row has one."""
        shards = self._shard_of[rows]
        found = np.zeros((len(rows), self._index.dim), dtype=np.float32)
        for number in np.unique(shards):
            mine = np.flatnonzero(shards == number)
            found[mine] = self._index.shards[number].reconstruct_batch(rows[mine])
        return found

    def search(self, queries: Vectors, k: int | Ids, among: Selection | None = None) -> tuple[Ids, Scores]:
        """``ShardedIndex.search``; ``among`` is one that ``selection`` made.

        An answer from at most ``direct_up_to`` items is exact, and so is any from flat shards.
        """
        if among is None or among.count > self._direct_up_to:
            return self._index.search(queries, k, among)
        wanted = np.broadcast_to(np.asarray(k, dtype=np.int64), len(queries))
        ids = np.full((len(queries), int(np.max(k, initial=0))), -1, dtype=np.int64)
        scores = np.full(ids.shape, -np.inf, dtype=np.float32)
        if not among.count:
            return ids, scores
        all_scores = queries @ self.vectors(among.rows).T
        for place, row_scores in enumerate(all_scores):
            best = top(row_scores, int(wanted[place]))
            ids[place, : len(best)], scores[place, : len(best)] = among.rows[best], row_scores[best]
        return ids, scores


def top(scores: Scores, k: int) -> Rows:
    """Places of the ``k`` largest ``scores`` (n,), or of all where there are fewer; best first, ties by place."""
    if 0 < k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")][:k]


def _ids(shard: Any) -> Sequence[int] | Rows:
    if not isinstance(shard, faiss.IndexIVF):
        return np.asarray(faiss.vector_to_array(shard.id_map))
    lists: Any = shard.invlists
    sizes = [lists.list_size(number) for number in range(shard.nlist)]
    found = [np.array(faiss.rev_swig_ptr(lists.get_ids(number), size)) for number, size in enumerate(sizes) if size]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
