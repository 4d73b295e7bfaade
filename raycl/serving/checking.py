"""From a query to what it means in one release: its history as rows, who may come, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.errors import InputError
from raycl.index.selection import Rows, Selection
from raycl.serving import told
from raycl.serving.api import Basis, Query
from raycl.serving.catalogue import Catalogue
from raycl.serving.checked import Checked, Index, Joined, Vectors
from raycl.serving.filters import ItemId
from raycl.serving.remote import NoShard
from raycl.serving.sessions import Fresh


class Checks:
    """Checks queries against one release; threads may share it."""

    def __init__(
        self,
        catalogue: Catalogue,
        index: Index,
        users: told.Reader,
        requests: told.Reader,
        max_history: int,
        clock: Callable[[], float],
        joined: Joined,
    ) -> None:
        """``users`` and ``requests`` read what queries say of both; the rest is as ``Retriever`` has it."""
        self.catalogue, self._index = catalogue, index
        self._users, self._requests = users, requests
        self._max_history, self._clock, self._joined = max_history, clock, joined

    def check_all(self, asked: Sequence[tuple[Query, Sequence[Fresh]]]) -> list[Checked | InputError]:
        """``check`` of each query and what its user did since; what all say of user and request is encoded together."""
        users = self._users.read([query.user for query, _ in asked])
        requests = self._requests.read([query.context for query, _ in asked])
        found: list[Checked | InputError] = []
        for (query, fresh), features, context in zip(asked, users, requests, strict=True):
            try:
                found.append(self._check(query, fresh, told.good(features), told.good(context)))
            except InputError as error:
                found.append(error)
        return found

    def _check(self, query: Query, fresh: Sequence[Fresh], features: pa.Table, context: pa.Table) -> Checked:
        met = {str(one) for one in query.history} if fresh else set()
        added = [one for one in fresh if str(one.item) not in met]
        history = [*query.history, *(one.item for one in added)]
        age_s = told.ages(query, [one.time for one in added], self._clock)
        known_rows = self.catalogue.rows(history)
        rows = known_rows.copy()
        for place in np.flatnonzero(rows < 0).tolist() if query.new_items else ():
            likest = self.catalogue.likest(query.new_items.get(str(history[place]), {}))
            rows[place] = likest[0] if len(likest) else -1
        rows = self._joined.known(rows)
        left_out = known_rows if query.exclude_history else known_rows[:0]  # a stand-in was not met
        known = rows >= 0
        newest = known.nonzero()[0][::-1][: self._max_history]
        return Checked(
            query,
            features,
            context,
            events=rows[newest],
            named=np.where(known_rows < 0, rows, known_rows)[newest],
            age_s=age_s[newest],
            left_out=self._left_out(query, left_out),
            unknown_history=len(rows) - int(np.count_nonzero(known)),
            among=self._among(query),
            basis=_basis(query, len(newest)),
        )

    def check_similar(self, item: ItemId, features: Mapping[str, Any], query: Query) -> Checked:
        """The query for items like this one; for one without a vector stand those that are likest by ``features``.

        Of these the ones whose part of the index does not answer are left out; NoShard where that leaves none.
        """
        (row,) = self.catalogue.rows([item])
        basis: Basis = "item"
        found = np.array([row], dtype=np.int64)
        if row < 0 or not self.catalogue.all.kept[row]:
            found = self.catalogue.likest(features)
            basis = "features" if len(found) else "popularity"
        vector = self._mean(found) if len(found) else None
        asked = query.model_copy(update={"exclude": [item, *query.exclude]})
        none = np.zeros(0, dtype=np.int32)
        return Checked(
            asked,
            self._users.nothing,
            self._requests.nothing,
            events=none,
            named=none,
            age_s=none.astype(np.float32),
            left_out=self._left_out(asked, none),
            unknown_history=0,
            among=self._among(asked),
            basis=basis,
            vector=vector,
        )

    def _mean(self, rows: Rows) -> Vectors:
        vectors = self._index.vectors(rows)
        known = np.isfinite(vectors).all(axis=1)
        if not known.any():
            raise NoShard(
                f"the part of the index with the vectors of {self.catalogue.ids(rows)} does not answer in time"
            )
        return np.asarray(vectors[known].mean(0))

    def _left_out(self, query: Query, met: npt.NDArray[np.int32]) -> Rows:
        rows = {*met.tolist(), *self.catalogue.rows(query.exclude).tolist()} if query.exclude else set(met.tolist())
        return np.array(sorted(rows - {-1}), dtype=np.int64)

    def _among(self, query: Query) -> Selection:
        """What passes the filter; InputError where that, or a cap, is on a column that there is not."""
        if query.diversity is not None:
            for name in query.diversity.max_per:
                self.catalogue.columns.groups(name, np.zeros(0, dtype=np.int64))
        return self.catalogue.all if query.filter is None else self.catalogue.selection(query.filter)


def _basis(query: Query, num_events: int) -> Basis:
    if num_events:
        return "history"
    said = [*query.user.values(), *query.context.values()]
    return "features" if any(value is not None for value in said) else "popularity"
