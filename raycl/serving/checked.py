"""A query as one release understands it, and the index that it is answered from."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.index.selection import Mask, Rows, Selection
from raycl.serving.api import Basis, Query

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float32]


class Index(Protocol):
    """What answers are found in: this process's own, or calls to elsewhere."""

    def search(self, queries: Vectors, k: Ids, among: Selection | None = None) -> tuple[Ids, Scores]:
        """Rows and scores (queries, most of ``k``), best first, and -1 where there are no more or not so many asked."""

    def selection(self, kept: Mask) -> Selection:
        """Those of the ``kept`` rows that can be found."""

    def vectors(self, rows: Rows) -> Vectors:
        """The vectors (rows, dim) of rows that can be found; NaN of one whose part of the index does not answer."""

    def scores(self, queries: Vectors, rows: Rows) -> Scores:
        """What each of these rows scores for each query, (queries, rows), as a search scores it.

        NaN as in ``vectors``.
        """


@dataclass(frozen=True)
class Joined:
    """What joined a release since it was built, as far as histories and answers tell of it."""

    number: int = 0
    """The newest hand-in that is answered from; 0 without any."""
    num_known: int = 0
    """Rows that the user tower knows; those of new items follow them."""
    stand_ins: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Of each new item the known row that stands for it in a history, -1 for none."""

    def known(self, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """These rows with those of new items replaced."""
        if not len(self.stand_ins):
            return rows
        known, new = rows.copy(), rows >= self.num_known
        known[new] = self.stand_ins[rows[new] - self.num_known]
        return known


@dataclass(frozen=True)
class Checked:
    """A query that a release can answer, and what it means there."""

    query: Query
    features: pa.Table
    """What it says of the user, as the release's encoders put it: one row."""
    context: pa.Table
    """What it says of the request, in the same way."""
    events: npt.NDArray[np.int32]
    """The history as rows that the tower knows, the newest first, no more than it reads."""
    named: npt.NDArray[np.int32]
    """The row by whose id each of these events is called: another one where a known item stands for a new one."""
    age_s: npt.NDArray[np.float32]
    """Seconds since each of these events, NaN where that is not known."""
    left_out: Rows
    """Distinct rows that must not come."""
    unknown_history: int
    among: Selection
    """What passes the filter."""
    basis: Basis
    vector: Vectors | None = None
    """Of what is asked for (dim,), where that is no user."""

    @property
    def matched(self) -> int:
        """Items that may come."""
        return self.among.count - self.num_left_out

    @functools.cached_property
    def num_left_out(self) -> int:
        """Rows that pass the filter and must not come."""
        return int(np.count_nonzero(self.among.kept[self.left_out]))
