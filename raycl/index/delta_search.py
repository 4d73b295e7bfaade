"""Search in a release and what joined it since: the index without the rows that no longer hold, and the new vectors."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from raycl.index import nearest
from raycl.index.joined import Delta
from raycl.index.nearest import Ids, Scores, Vectors
from raycl.index.selection import Mask, Rows, Selection


class Index(Protocol):
    """What a release alone is searched by; the service's index is one."""

    def search(self, queries: Vectors, k: Ids, among: Selection | None = None) -> tuple[Ids, Scores]: ...

    def selection(self, kept: Mask) -> Selection: ...

    def vectors(self, rows: Rows) -> Vectors: ...

    def scores(self, queries: Vectors, rows: Rows) -> Scores: ...


class JoinedSelection(Selection):
    """Rows of a release and of its delta that may be found."""

    def __init__(self, kept: Mask, base: Selection, places: Rows) -> None:
        """``base``: those in the release's own index; ``places``: of the others among the delta's vectors."""
        super().__init__(kept)
        self.base, self.places = base, places


class JoinedIndex:
    """Answers as an index that was built with the delta in it would, as far as the release's own index is exact.

    The delta's vectors are all compared, and the release's own index is searched among the rows that still hold, so an
    answer is as long as it can be. Threads may share it.
    """

    def __init__(self, index: Index, num_rows: int, delta: Delta, metric: str) -> None:
        """``index``: of the release; ``num_rows``: of its catalogue."""
        self._index, self._delta, self._metric = index, delta, metric
        self._num_rows = num_rows
        self._num_all = max(num_rows, int(delta.rows.max(initial=-1)) + 1)
        self._holds = np.ones(num_rows, dtype=np.bool_)
        self._holds[delta.hidden] = False
        self._num_base = index.selection(np.ones(num_rows, dtype=np.bool_)).count
        self._all = self.selection(np.ones(self._num_all, dtype=np.bool_))

    def selection(self, kept: Mask) -> JoinedSelection:
        """Those of the ``kept`` rows (all rows,) that can be found."""
        places = np.flatnonzero(kept[self._delta.rows])
        base = self._index.selection(kept[: self._num_rows] & self._holds)
        found = np.zeros(self._num_all, dtype=np.bool_)
        found[: self._num_rows] = base.kept
        found[self._delta.rows[places]] = True
        return JoinedSelection(found, base, places)

    def search(self, queries: Vectors, k: Ids, among: Selection | None = None) -> tuple[Ids, Scores]:
        """Rows and scores (queries, most of ``k``), best first, and -1 where there are no more or not so many asked."""
        chosen = self._all if among is None else among
        assert isinstance(chosen, JoinedSelection)
        wanted = np.broadcast_to(np.asarray(k, dtype=np.int64), len(queries))
        width = int(np.max(wanted, initial=0))
        places = chosen.places
        vectors = self._delta.vectors if len(places) == len(self._delta.rows) else self._delta.vectors[places]
        found, scores = nearest.exact(vectors, queries, width, self._metric)
        rows = np.where(found < 0, -1, self._delta.rows[places][found]) if len(places) else found
        of_base = self._index.search(queries, wanted, chosen.base if chosen.base.count < self._num_base else None)
        ids, scores = nearest.merge_in_turn([of_base, (rows, scores)], width)
        beyond = np.arange(width) >= wanted[:, None]
        ids[beyond], scores[beyond] = -1, -np.inf
        return ids, scores

    def vectors(self, rows: Rows) -> Vectors:
        """The vectors (rows, dim) of rows that can be found."""
        places, mine = self._places(rows)
        found = np.empty((len(rows), self._delta.vectors.shape[1]), dtype=np.float32)
        found[mine] = self._delta.vectors[places[mine]]
        found[~mine] = self._index.vectors(rows[~mine])
        return found

    def scores(self, queries: Vectors, rows: Rows) -> Scores:
        """What each of these rows scores for each query, (queries, rows), as a search scores it."""
        places, mine = self._places(rows)
        found = np.empty((len(queries), len(rows)), dtype=np.float32)
        found[:, mine] = nearest.score_all(queries, self._delta.vectors[places[mine]], self._metric)
        found[:, ~mine] = self._index.scores(queries, rows[~mine])
        return found

    def _places(self, rows: Rows) -> tuple[Rows, Mask]:
        """Where each row would be among the delta's, and whether it is there."""
        if not len(self._delta.rows):
            return np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.bool_)
        places = np.minimum(np.searchsorted(self._delta.rows, rows), len(self._delta.rows) - 1)
        return places, np.asarray(self._delta.rows[places] == rows)
