"""A release and what joined it since: which rows no longer hold, which vectors came, and the catalogue as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raycl.data.columns import whole
from raycl.data.id_map import IdMap
from raycl.index.deltas import Taken
from raycl.index.nearest import Ids, Vectors


@dataclass(frozen=True)
class Delta:
    """The newest word of every item that was handed in, beside the rows of the release."""

    number: int
    """The newest hand-in; 0 without any."""
    hidden: Ids
    """Rows of the release that no longer hold, ascending: of items that changed or are gone."""
    rows: Ids
    """The row of each vector, ascending: a changed item keeps its own, new ones follow those of the release."""
    vectors: Vectors
    """(rows, dim)"""
    shown: pa.Table
    """``item`` and what an answer shows of it, of each row of ``rows``."""


def together(taken: Taken, catalogue: pa.Table, dim: int) -> Delta:
    """All hand-ins to the release with this ``catalogue``, of which the newest word of each item holds."""
    shown = catalogue.schema.remove(catalogue.schema.get_field_index("train_count"))
    parts = [taken.tables[number] for number in taken.holding]
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        return Delta(taken.number, nothing, nothing, np.zeros((0, dim), dtype=np.float32), shown.empty_table())
    every = pa.concat_tables(parts)
    ids = whole(every["item"])
    distinct = pc.unique(ids)
    newest = np.zeros(len(distinct), dtype=np.int64)
    np.maximum.at(newest, IdMap(distinct).rows(ids), np.arange(len(ids)))
    words = every.take(pa.array(newest))
    row = IdMap(whole(catalogue["item"])).rows(distinct).astype(np.int64)
    hidden = np.sort(row[row >= 0])
    stays = ~whole(words["removed"]).to_numpy(zero_copy_only=False)
    held, row = words.filter(pa.array(stays)), row[stays]
    row[row < 0] = catalogue.num_rows + np.arange(int((row < 0).sum()))
    order = np.argsort(row)
    held = held.take(pa.array(order))
    vectors = whole(held["vector"]).flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return Delta(taken.number, hidden, row[order], vectors, held.select(shown.names))


def updated(catalogue: pa.Table, delta: Delta) -> pa.Table:
    """The catalogue with every row of the delta: changed items in their places, and new ones at the end.

    Rows of items that are gone stay, since a history may name them. New items have no events in training.
    """
    num_rows, changed = catalogue.num_rows, delta.rows < catalogue.num_rows
    counts = np.zeros(len(delta.rows), dtype=np.int64)
    counts[changed] = whole(catalogue["train_count"]).to_numpy()[delta.rows[changed]]
    came = delta.shown.append_column("train_count", pa.array(counts)).select(catalogue.column_names)
    places = np.arange(num_rows + int((~changed).sum()))
    places[delta.rows] = num_rows + np.arange(len(delta.rows))
    return pa.concat_tables([catalogue, came.cast(catalogue.schema)]).take(pa.array(places))
