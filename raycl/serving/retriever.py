"""From queries to answers within one release: encode, search, choose, explain, describe; a whole batch at a time."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raycl.config_serving import ServingConfig
from raycl.data.features import Encoders
from raycl.errors import InputError
from raycl.index.release import Release
from raycl.index.selection import Rows
from raycl.index.selective import SelectiveIndex
from raycl.model import inputs
from raycl.model.few_users import FewUsers
from raycl.serving import explain, pool, told
from raycl.serving.api import Answer, Item, Query, Reason, Reasons
from raycl.serving.catalogue import Catalogue
from raycl.serving.checked import Checked, Index, Joined, Vectors
from raycl.serving.checking import Checks
from raycl.serving.filters import ItemId
from raycl.serving.sessions import Fresh

States = npt.NDArray[np.int32]
"""Vocabulary rows (queries, max_history), newest first and then -1."""

Encode = Callable[[States, pa.Table, Vectors, pa.Table], Vectors]
"""States, encoded user features, seconds since each event or NaN (queries, max_history), and encoded context, to
vectors (queries, dim)."""

Observe = Callable[[str, float], None]
"""Told the name of a phase and its seconds."""


class Retriever:
    """Answers from one release; threads may share it."""

    def __init__(
        self,
        release: str,
        catalogue: pa.Table,
        encoders: Encoders,
        max_history: int,
        encode: Encode,
        index: Index,
        context: Encoders | None = None,
        config: ServingConfig | None = None,
        ticks: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        joined: Joined | None = None,
    ) -> None:
        """``catalogue``: one vocabulary row a row; ``ticks``: seconds that never go back, for what has a budget.

        ``clock``: seconds since 1970, which say when a query is asked that does not say it itself. ``joined``: of a
        catalogue and an index that have more than the release.
        """
        self.release, self.table = release, catalogue
        self._joined = joined or Joined()
        self._again = functools.partial(
            Retriever,
            release,
            encoders=encoders,
            max_history=max_history,
            encode=encode,
            context=context,
            config=config,
            ticks=ticks,
            clock=clock,
        )
        self._config = config or ServingConfig()
        self._users, self._requests = told.Reader("user", encoders), told.Reader("context", context or Encoders())
        self._max_history = max_history
        self._encode, self._index, self._ticks = encode, index, ticks
        self.catalogue = Catalogue(catalogue, self._config.filters, index.selection)
        readers = self._users, self._requests
        self._checks = Checks(self.catalogue, index, *readers, max_history, clock, self._joined)

    @classmethod
    def of(cls, release: Release, config: ServingConfig | None = None, index: Index | None = None) -> Retriever:
        """A retriever that does all in this process, but for searches where another ``index`` is given."""
        encoders, requests = release.user_encoders, release.context_encoders
        tower = FewUsers(release.user_tower)

        def encode(history: States, features: pa.Table, age_s: Vectors, context: pa.Table) -> Vectors:
            described = inputs.from_table(features, encoders, len(history))
            said = inputs.from_table(context, requests, len(history))
            return tower(history, described, age_s, said)

        index = index or SelectiveIndex(release.index, release.catalogue.num_rows)
        max_history = release.user_tower.max_history
        return cls(release.name, release.catalogue, encoders, max_history, encode, index, requests, config)

    @property
    def delta(self) -> int:
        """Number of the newest hand-in that is answered from; 0 without any."""
        return self._joined.number

    @property
    def index(self) -> Index:
        """What answers are found in."""
        return self._index

    def joined(self, catalogue: pa.Table, index: Index, joined: Joined) -> Retriever:
        """The same release, with what joined it in ``catalogue`` and ``index``."""
        return self._again(catalogue=catalogue, index=index, joined=joined)

    def warm(self) -> None:
        """Answer once by each basis, so that the first caller does not wait for what is made at first use."""
        self.answer(
            [self.check(Query(history=self.catalogue.ids(self.catalogue.by_popularity[:2]))), self.check(Query())]
        )

    def check(self, query: Query, fresh: Sequence[Fresh] = ()) -> Checked:
        """What the query means here; InputError, naming field, value and remedy, where there is no answer.

        ``fresh``: what this user did since, the newest last.
        """
        (found,) = self.check_all([(query, fresh)])
        if isinstance(found, InputError):
            raise found
        return found

    def check_all(self, asked: Sequence[tuple[Query, Sequence[Fresh]]]) -> list[Checked | InputError]:
        """``check`` of each query and what its user did since; what all say of user and request is encoded together."""
        return self._checks.check_all(asked)

    def check_similar(self, item: ItemId, features: Mapping[str, Any], query: Query) -> Checked:
        """The query for items like this one, as ``Checks.check_similar`` says; raises as that does."""
        return self._checks.check_similar(item, features, query)

    def retrieve(self, queries: Sequence[Query]) -> list[Answer]:
        """One answer a query, in order; InputError as ``check`` raises it."""
        checked = self.check_all([(query, ()) for query in queries])
        for one in checked:
            if isinstance(one, InputError):
                raise one
        return self.answer([one for one in checked if isinstance(one, Checked)])

    def answer(self, checked: Sequence[Checked], observe: Observe = lambda phase, seconds: None) -> list[Answer]:
        """One answer a query, in order, to what this retriever's ``check`` or ``check_similar`` returned."""
        with self._timed("encode", observe):
            vectors = self._vectors(checked)
            checked = [
                replace(one, basis="popularity") if vector is None else one
                for one, vector in zip(checked, vectors, strict=True)
            ]
        with self._timed("search", observe):
            sizes = [pool.num_candidates(one) for one in checked]
            pools = pool.nearest(checked, vectors, sizes, self._index, self.catalogue)
        with self._timed("rerank", observe):
            chosen = [
                pool.choose(one, vector, found, self._index, self.catalogue, self._budget())
                for one, vector, found in zip(checked, vectors, pools, strict=True)
            ]
        with self._timed("explain", observe):
            reasons = [
                self._reasons(one, found.rows) if one.query.explain and one.basis in ("history", "features") else None
                for one, found in zip(checked, chosen, strict=True)
            ]
        with self._timed("describe", observe):
            self.catalogue.shown(np.concatenate([found.rows for found in chosen]))  # together, where they are new
            return [self._answer(*parts) for parts in zip(checked, chosen, reasons, strict=True)]

    def _budget(self) -> Callable[[], bool]:
        end = self._ticks() + self._config.rerank_ms / 1000
        return lambda: self._ticks() < end

    @contextlib.contextmanager
    def _timed(self, phase: str, observe: Observe) -> Iterator[None]:
        started = self._ticks()
        yield
        observe(phase, self._ticks() - started)

    def _vectors(self, checked: Sequence[Checked]) -> list[Vectors | None]:
        """Of each query its vector (dim,), None where popularity answers it: also where the tower's is not finite."""
        vectors = [one.vector for one in checked]
        users = [
            place
            for place, one in enumerate(checked)
            if one.basis in ("history", "features") and vectors[place] is None
        ]
        if users:
            found = self._encoded([(checked[place], np.arange(len(checked[place].events))) for place in users])
            for place, vector in zip(users, found, strict=True):
                vectors[place] = vector if np.isfinite(vector).all() else None
        return vectors

    def _encoded(self, asked: Sequence[tuple[Checked, Rows]]) -> Vectors:
        """Vectors (users, dim) of users who did no more than the events at these places of ``Checked.events``."""
        states = np.full((len(asked), self._max_history), -1, dtype=np.int32)
        ages = np.full(states.shape, np.nan, dtype=np.float32)
        for state, age_s, (one, places) in zip(states, ages, asked, strict=True):
            state[: len(places)], age_s[: len(places)] = one.events[places], one.age_s[places]
        features = self._users.together([one.features for one, _ in asked])
        context = self._requests.together([one.context for one, _ in asked])
        with torch.inference_mode():
            return self._encode(states, features, ages, context)

    def _reasons(self, checked: Checked, rows: Rows) -> list[Reasons | None]:
        """Of each item, the worth of an empty history and the value of each event; None without its vector."""
        events = checked.events

        def worth(subsets: explain.Subsets) -> explain.Values:
            vectors = self._encoded([(checked, np.flatnonzero(subset)) for subset in subsets])
            return self._index.scores(vectors, rows).astype(np.float64)

        base, values = explain.shapley(worth, len(events))
        names = self.catalogue.ids(checked.named.astype(np.int64))
        return [
            Reasons(
                empty_history=float(base[place]),
                events=[
                    Reason(item_id=names[event], value=float(values[event, place]))
                    for event in np.argsort(-values[:, place], kind="stable")
                ],
            )
            if np.isfinite(base[place])
            else None
            for place in range(len(rows))
        ]

    def _answer(self, checked: Checked, chosen: pool.Chosen, reasons: list[Reasons | None] | None) -> Answer:
        items = [
            Item(
                item_id=item_id,
                score=float(chosen.scores[place]),
                title=title,
                display=display,
                explored=place in chosen.explored,
                reasons=reasons[place] if reasons else None,
            )
            for place, (item_id, title, display) in enumerate(self.catalogue.shown(chosen.rows))
        ]
        return Answer(
            release=self.release,
            delta=self.delta,
            items=items,
            short=len(items) < checked.query.k,
            matched=checked.matched,
            unknown_history=checked.unknown_history,
            basis=checked.basis,
            degraded=["diversity"] if chosen.by_score else [],
        )
