"""From queries to answers within one release: encode, search, leave out, describe; a whole batch at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raycl.data.features import Encoders
from raycl.data.id_map import IdMap
from raycl.errors import InputError
from raycl.index.release import Release
from raycl.model import embed, inputs
from raycl.serving.api import Answer, Item, Query

Encode = Callable[[npt.NDArray[np.int32], pa.Table, npt.NDArray[np.float32], pa.Table], npt.NDArray[np.float32]]
"""Histories (queries, max_history), newest first and then -1, encoded user features, seconds since each event or NaN
(queries, max_history), and encoded context, to vectors (queries, dim)."""

Search = Callable[
    [npt.NDArray[np.float32], npt.NDArray[np.int64]], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
]
"""Vectors (queries, dim) and how many items each is to get, to rows and scores (queries, most of these numbers).

Best first, and -1 where there are no more or no more were asked for.
"""


@dataclass(frozen=True)
class Checked:
    """A query that a release can answer, and what it says of user and request as that release's encoders put it."""

    query: Query
    features: pa.Table
    """One row"""
    context: pa.Table
    """One row"""
    age_s: npt.NDArray[np.float32]
    """(events of the history,); NaN where that is not known"""


class Retriever:
    """Answers from one release; ``encode`` and ``search`` may be its own or calls to elsewhere."""

    def __init__(
        self,
        release: str,
        catalogue: pa.Table,
        encoders: Encoders,
        max_history: int,
        encode: Encode,
        search: Search,
        context: Encoders | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``catalogue``: one vocabulary row a row; ``clock`` says when a query is asked that does not say it itself."""
        self.release = release
        self._catalogue = catalogue
        self._encoders, self._context = encoders, context or Encoders()
        self._clock = clock
        self._max_history = max_history
        self._encode, self._search = encode, search
        self._ids = IdMap(catalogue["item"].combine_chunks())
        self._shown = [name for name in catalogue.column_names if name not in ("item", "title", "train_count")]

    @classmethod
    def of(cls, release: Release) -> Retriever:
        """A retriever that does all in this process."""
        encoders, requests = release.user_encoders, release.context_encoders

        def encode(
            history: npt.NDArray[np.int32], features: pa.Table, age_s: npt.NDArray[np.float32], context: pa.Table
        ) -> npt.NDArray[np.float32]:
            rows = np.arange(len(history), dtype=np.int32)
            described = inputs.from_table(features, encoders, len(history))
            said = inputs.from_table(context, requests, len(history))
            return embed.users(release.user_tower, history, rows, described, age_s, said)

        return cls(
            release.name,
            release.catalogue,
            encoders,
            release.user_tower.max_history,
            encode,
            release.index.search,
            requests,
        )

    def check(self, query: Query) -> Checked:
        """The query as it is encoded; InputError, naming field, value and remedy, where there is no answer."""
        return Checked(
            query,
            _encoded("user", query.user, self._encoders),
            _encoded("context", query.context, self._context),
            _ages(query, self._clock),
        )

    def retrieve(self, queries: Sequence[Query]) -> list[Answer]:
        """One answer a query, in order; InputError as ``check`` raises it."""
        return self.answer([self.check(query) for query in queries])

    def answer(self, checked: Sequence[Checked]) -> list[Answer]:
        """One answer a query, in order, to what this retriever's ``check`` returned."""
        queries = [one.query for one in checked]
        histories = [self._rows(query.history) for query in queries]
        states = np.full((len(queries), self._max_history), -1, dtype=np.int32)
        ages = np.full(states.shape, np.nan, dtype=np.float32)
        for state, age_s, rows, one in zip(states, ages, histories, checked, strict=True):
            newest = np.flatnonzero(rows >= 0)[::-1][: self._max_history]
            state[: len(newest)] = rows[newest]
            age_s[: len(newest)] = one.age_s[newest]
        features = pa.concat_tables([one.features for one in checked])
        context = pa.concat_tables([one.context for one in checked])
        with torch.inference_mode():
            vectors = self._encode(states, features, ages, context)
        left_out = [
            np.concatenate([rows if query.exclude_history else rows[:0], self._rows(query.exclude)])
            for query, rows in zip(queries, histories, strict=True)
        ]
        wanted = [query.k + len(rows) for query, rows in zip(queries, left_out, strict=True)]
        found, scores = self._search(vectors, np.minimum(wanted, len(self._ids)))
        return [
            self._answer(query, rows, left, ids, of_ids)
            for query, rows, left, ids, of_ids in zip(queries, histories, left_out, found, scores, strict=True)
        ]

    def _rows(self, ids: Sequence[int | str]) -> npt.NDArray[np.int32]:
        """Vocabulary rows, -1 for an id that is not in it; an integer may come as text and text as an integer."""
        if not pa.types.is_integer(self._ids.ids.type):
            return np.array([self._ids.row_of_text(str(one)) for one in ids], dtype=np.int32)
        numbers = [_whole(one) for one in ids]
        rows = np.full(len(ids), -1, dtype=np.int32)
        known = np.array([number is not None for number in numbers], dtype=np.bool_)
        rows[known] = self._ids.rows(pa.array([number for number in numbers if number is not None], pa.int64()))
        return rows

    def _answer(
        self,
        query: Query,
        history: npt.NDArray[np.int32],
        left_out: npt.NDArray[np.int32],
        ids: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
    ) -> Answer:
        kept = np.flatnonzero((ids >= 0) & ~np.isin(ids, left_out))[: query.k]
        rows = self._catalogue.take(pa.array(ids[kept])).to_pylist()
        items = [
            Item(
                item_id=row["item"],
                score=float(score),
                title=row.get("title"),
                display={name: row[name] for name in self._shown},
            )
            for row, score in zip(rows, scores[kept], strict=True)
        ]
        return Answer(
            release=self.release, items=items, short=len(items) < query.k, unknown_history=int((history < 0).sum())
        )


def _encoded(name: str, known: dict[str, Any], encoders: Encoders) -> pa.Table:
    """One row; InputError for a value that the release has no feature for."""
    columns = [feature.column for feature in encoders.features]
    for column in known:
        if column not in columns:
            names = ", ".join(columns) if columns else "none"
            raise InputError(f"{name}.{column}={known[column]!r}: the release knows no such feature; it knows {names}")
    return encoders.encode_rows([known], name)


def _ages(query: Query, clock: Callable[[], float]) -> npt.NDArray[np.float32]:
    """Seconds since each event of the history; InputError where there is not one time for each."""
    if not query.times:
        return np.full(len(query.history), np.nan, dtype=np.float32)
    if len(query.times) != len(query.history):
        raise InputError(
            f"times has {len(query.times)} values and history {len(query.history)}: give the time of each event, null"
            f" where it is not known, or leave times out"
        )
    asked = clock() if query.time is None else query.time
    return (asked - np.array(query.times, dtype=np.float64)).astype(np.float32)


def _whole(value: int | str) -> int | None:
    try:
        number = int(value)
    except ValueError:
        return None
    return number if -(2**63) <= number < 2**63 else None


def describe(answer: Answer) -> list[dict[str, Any]]:
    """The answer's items as flat rows, for a table."""
    return [
        {"item_id": item.item_id, "title": item.title, "score": item.score, **item.display} for item in answer.items
    ]
