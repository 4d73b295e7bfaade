"""Search in a release and what joined it since: the index without the rows that no longer hold, and the new vectors."""

from __future__ import annotations

import numpy as np

from raycl.index import search
from raycl.index.deltas import Delta
from raycl.index.search import Ids, Scores, ShardedIndex, Vectors


def nearest(index: ShardedIndex, delta: Delta, queries: Vectors, k: int) -> tuple[Ids, Scores]:
    """Rows and scores (num_queries, k), best first, -1 and -inf where there are no more.

    What an index that was built with the delta in it would answer, as far as ``index`` itself is exact: it is asked for
    twice as many, and again, while what no longer holds leaves a query too few.
    """
    ids, scores = _of_index(index, delta, queries, k)
    places, exact = search.exact(delta.vectors, queries, k, index.metric)
    rows = np.where(places < 0, -1, delta.rows[places]) if len(delta.rows) else places
    return search.merge(np.stack([ids, rows]), np.stack([scores, exact]), k)


def _of_index(index: ShardedIndex, delta: Delta, queries: Vectors, k: int) -> tuple[Ids, Scores]:
    width = min(k, len(index))
    while True:
        ids, scores = index.search(queries, width)
        holds = (ids >= 0) & ~np.isin(ids, delta.hidden)
        enough = holds.sum(axis=1) >= min(k, len(index))
        if width >= len(index) or enough.all():
            break
        width = min(2 * width, len(index))
    return search.merge(np.where(holds, ids, -1)[None], scores[None], k)
