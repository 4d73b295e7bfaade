"""A catalogue, fitted features, and an encoder and a search in plain loops, for retrievers without towers or FAISS."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.config import Feature, ServingConfig
from raycl.data.features import Encoders
from raycl.index.selection import Mask, Selection
from raycl.serving.api import Query
from raycl.serving.retriever import Encode, Retriever

MAX_HISTORY = 3
IDS = [101, 102, 103, 104, 107, 110]

Histories = npt.NDArray[np.int32]
Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def encoders() -> Encoders:
    """One feature of each kind."""
    known = pa.table(
        {
            "country": ["pe", "lk", None],
            "tags": ["tea|rope", "lamp", ""],
            "age": [20.0, 30.0, 70.0],
            "bio": ["likes tea", "", None],
        }
    )
    features = (
        Feature(column="country"),
        Feature(column="tags", kind="multi"),
        Feature(column="age", kind="numeric"),
        Feature(column="bio", kind="text", num_buckets=8),
    )
    return Encoders.fit(features, known)


def catalogue(ids: Sequence[int | str] = IDS) -> pa.Table:
    """Items in ascending order of id, with titles and one displayed column."""
    return pa.table(
        {
            "item": pa.array(ids, pa.int64() if isinstance(ids[0], int) else pa.large_string()),
            "title": [f"Item {one}" for one in ids],
            "price": [10.0 * row for row in range(len(ids))],
            "train_count": [1] * len(ids),
        }
    )


def encode(history: Histories, features: pa.Table, age_s: Vectors, context: pa.Table) -> Vectors:
    """One number for each item: 0.5 where it is the newest of the history, half of that for each older one.

    A little is added that depends on the features and on the item; ages and context say nothing.
    """
    vectors = np.zeros((len(history), len(IDS)), dtype=np.float32)
    for query, (rows, described) in enumerate(zip(history.tolist(), features.to_pylist(), strict=True)):
        for age, row in enumerate(rows):
            if row >= 0:
                vectors[query, row] += 0.5 ** (age + 1)
        told = sum(described["country"] + described["tags"] + described["bio"]) + (described["age"] or 0.0)
        for row in range(len(IDS)):
            vectors[query, row] += 0.01 * ((row * (1.3 + told)) % 1.7)
    return vectors


def search(vectors: Vectors, k: Ids) -> tuple[Ids, npt.NDArray[np.float32]]:
    """The items with the largest numbers, as many as most queries want."""
    rows = np.argsort(-vectors, axis=1, kind="stable")[:, : k.max()].astype(np.int64)
    return rows, np.take_along_axis(vectors, rows, axis=1)


class PlainIndex:
    """Every row has a vector, in which it alone is 1: an encoder's numbers are the scores."""

    def __init__(self, search: Callable[[Vectors, Ids], tuple[Ids, npt.NDArray[np.float32]]] = search) -> None:
        self._search = search

    def search(self, queries: Vectors, k: Ids, among: Selection | None = None) -> tuple[Ids, npt.NDArray[np.float32]]:
        """As ``search``, of the rows that are chosen."""
        if among is not None:
            queries = np.where(among.kept, queries, -np.inf).astype(np.float32)
        rows, scores = self._search(queries, k)
        return np.where(np.isneginf(scores), -1, rows), scores

    def selection(self, kept: Mask) -> Selection:
        """All of them."""
        return Selection(kept)

    def vectors(self, rows: Ids) -> Vectors:
        """Unit vectors."""
        return np.eye(len(IDS), dtype=np.float32)[rows]

    def scores(self, queries: Vectors, rows: Ids) -> Vectors:
        """Of these rows alone."""
        return queries[:, rows]


def retriever(
    ids: Sequence[int | str] = IDS,
    encode: Encode = encode,
    search: Callable[[Vectors, Ids], tuple[Ids, npt.NDArray[np.float32]]] = search,
    release: str = "r1",
    table: pa.Table | None = None,
    config: ServingConfig | None = None,
    ticks: Callable[[], float] = time.monotonic,
    clock: Callable[[], float] = time.time,
    context: Encoders | None = None,
) -> Retriever:
    """A retriever of these parts."""
    shown = catalogue(ids) if table is None else table
    index = PlainIndex(search)
    return Retriever(release, shown, encoders(), MAX_HISTORY, encode, index, context, config, ticks, clock)


def seen_histories(query: Query) -> list[list[int]]:
    """The rows that the encoder is given for this query."""
    seen: list[list[int]] = []

    def listen(history: Histories, features: pa.Table, age_s: Vectors, context: pa.Table) -> Vectors:
        seen.extend(history.tolist())
        return encode(history, features, age_s, context)

    retriever(encode=listen).retrieve([query])
    return seen
