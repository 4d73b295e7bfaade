"""From queries to answers within one release: encode, search, choose, explain, describe; a whole batch at a time."""

from __future__ import annotations

import contextlib
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
from raycl.model import embed, inputs
from raycl.serving import explain, pool
from raycl.serving.api import Answer, Basis, Item, Query, Reason, Reasons
from raycl.serving.catalogue import Catalogue
from raycl.serving.checked import Checked, Index, Vectors
from raycl.serving.filters import ItemId

States = npt.NDArray[np.int32]
"""Vocabulary rows (queries, max_history), newest first and then -1."""

Encode = Callable[[States, pa.Table], Vectors]
"""States and encoded user features, to vectors (queries, dim)."""

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
        config: ServingConfig | None = None,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """``catalogue``: one vocabulary row a row; ``ticks``: seconds that never go back, for what has a budget."""
        self.release = release
        self._config = config or ServingConfig()
        self._encoders, self._max_history = encoders, max_history
        self._encode, self._index, self._ticks = encode, index, ticks
        self._unknown = encoders.encode_rows([{}])
        """A user of whom nothing is known."""
        self.catalogue = Catalogue(catalogue, self._config.filters, index.selection)

    @classmethod
    def of(cls, release: Release, config: ServingConfig | None = None) -> Retriever:
        """A retriever that does all in this process."""
        encoders = release.user_encoders

        def encode(history: States, features: pa.Table) -> Vectors:
            rows = np.arange(len(history), dtype=np.int32)
            described = inputs.from_table(features, encoders, len(history))
            return embed.users(release.user_tower, history, rows, described)

        index = SelectiveIndex(release.index, release.catalogue.num_rows)
        return cls(release.name, release.catalogue, encoders, release.user_tower.max_history, encode, index, config)

    def warm(self) -> None:
        """Answer once by each basis, so that the first caller does not wait for what is made at first use."""
        self.answer(
            [self.check(Query(history=self.catalogue.ids(self.catalogue.by_popularity[:2]))), self.check(Query())]
        )

    def check(self, query: Query, fresh: Sequence[ItemId] = ()) -> Checked:
        """What the query means here; InputError, naming field, value and remedy, where there is no answer.

        ``fresh``: what this user did since, the newest last.
        """
        (found,) = self.check_all([(query, fresh)])
        if isinstance(found, InputError):
            raise found
        return found

    def check_all(self, asked: Sequence[tuple[Query, Sequence[ItemId]]]) -> list[Checked | InputError]:
        """``check`` of each query and what its user did since; the features of all users are encoded together."""
        try:
            described = self._described([query.user for query, _ in asked])
        except InputError:
            described = [self._described_alone(query.user) for query, _ in asked]
        found: list[Checked | InputError] = []
        for (query, fresh), features in zip(asked, described, strict=True):
            try:
                found.append(features if isinstance(features, InputError) else self._check(query, fresh, features))
            except InputError as error:
                found.append(error)
        return found

    def _described(self, users: Sequence[Mapping[str, Any]]) -> list[pa.Table | InputError]:
        """What is known of each user as the encoders put it, one row each; InputError where one cannot be encoded."""
        known = [feature.column for feature in self._encoders.features]
        for user in users:
            for name in user.keys() - set(known):
                names = ", ".join(known) if known else "none"
                value = repr(user[name])[:80]
                raise InputError(f"user.{name}={value}: the release knows no such feature; it knows {names}")
        told = [place for place, user in enumerate(users) if user]
        encoded = self._encoders.encode_rows([users[place] for place in told]) if told else None
        found: list[pa.Table | InputError] = [self._unknown] * len(users)
        for row, place in enumerate(told):
            assert encoded is not None
            found[place] = encoded.slice(row, 1)
        return found

    def _described_alone(self, user: Mapping[str, Any]) -> pa.Table | InputError:
        try:
            return self._described([user])[0]
        except InputError as error:
            return error

    def _check(self, query: Query, fresh: Sequence[ItemId], features: pa.Table) -> Checked:
        met = {str(one) for one in query.history}
        history = [*query.history, *(one for one in fresh if str(one) not in met)]
        known_rows = self.catalogue.rows(history)
        rows = known_rows.copy()
        for place in np.flatnonzero(rows < 0).tolist():
            likest = self.catalogue.likest(query.new_items.get(str(history[place]), {}))
            rows[place] = likest[0] if len(likest) else -1
        left_out = known_rows if query.exclude_history else known_rows[:0]  # a stand-in was not met
        return self._checked(query, features, rows, left_out, self._basis(query, rows))

    def check_similar(self, item: ItemId, features: Mapping[str, Any], query: Query) -> Checked:
        """The query for items like this one; for one without a vector stand those that are likest by ``features``."""
        (row,) = self.catalogue.rows([item])
        basis: Basis = "item"
        found = np.array([row], dtype=np.int64)
        if row < 0 or not self.catalogue.all.kept[row]:
            found = self.catalogue.likest(features)
            basis = "features" if len(found) else "popularity"
        vector = self._index.vectors(found).mean(0) if len(found) else None
        asked = query.model_copy(update={"exclude": [item, *query.exclude]})
        none = np.zeros(0, dtype=np.int32)
        return self._checked(asked, self._unknown, none, none, basis, vector)

    def _checked(
        self,
        query: Query,
        features: pa.Table,
        rows: npt.NDArray[np.int32],
        met: npt.NDArray[np.int32],
        basis: Basis,
        vector: Vectors | None = None,
    ) -> Checked:
        if query.diversity is not None:
            for name in query.diversity.max_per:
                self.catalogue.columns.groups(name, np.zeros(0, dtype=np.int64))
        left_out = np.unique(np.concatenate([self.catalogue.rows(query.exclude), met])).astype(np.int64)
        among = self.catalogue.all if query.filter is None else self.catalogue.selection(query.filter)
        return Checked(
            query,
            features,
            rows[rows >= 0][::-1][: self._max_history],
            left_out[left_out >= 0],
            int((rows < 0).sum()),
            among,
            basis,
            vector,
        )

    def _basis(self, query: Query, rows: npt.NDArray[np.int32]) -> Basis:
        if (rows >= 0).any():
            return "history"
        return "features" if any(value is not None for value in query.user.values()) else "popularity"

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
        for state, (one, places) in zip(states, asked, strict=True):
            state[: len(places)] = one.events[places]
        with torch.inference_mode():
            return self._encode(states, pa.concat_tables([one.features for one, _ in asked]))

    def _reasons(self, checked: Checked, rows: Rows) -> list[Reasons]:
        """Of each item, the worth of an empty history and the value of each event."""
        events, items = checked.events, self._index.vectors(rows).astype(np.float64)

        def worth(subsets: explain.Subsets) -> explain.Values:
            vectors = self._encoded([(checked, np.flatnonzero(subset)) for subset in subsets])
            return np.asarray(vectors.astype(np.float64) @ items.T)

        base, values = explain.shapley(worth, len(events))
        names = self.catalogue.ids(events.astype(np.int64))
        return [
            Reasons(
                empty_history=float(base[place]),
                events=[
                    Reason(item_id=names[event], value=float(values[event, place]))
                    for event in np.argsort(-values[:, place], kind="stable")
                ],
            )
            for place in range(len(rows))
        ]

    def _answer(self, checked: Checked, chosen: pool.Chosen, reasons: list[Reasons] | None) -> Answer:
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
            items=items,
            short=len(items) < checked.query.k,
            matched=checked.matched,
            unknown_history=checked.unknown_history,
            basis=checked.basis,
            degraded=["diversity"] if chosen.out_of_time else [],
        )


def describe(answer: Answer) -> list[dict[str, Any]]:
    """The answer's items as flat rows, for a table."""
    return [
        {"item_id": item.item_id, "title": item.title, "score": item.score, **item.display} for item in answer.items
    ]
