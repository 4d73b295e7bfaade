"""Items that are handed in between two nights: checked, embedded by the item tower, and as answers show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from raycl.config_encode import Encoding
from raycl.data.columns import whole
from raycl.data.features import Encoders
from raycl.data.id_map import IdMap
from raycl.errors import InputError
from raycl.index import release
from raycl.index.nearest import Vectors
from raycl.model import inputs, weights
from raycl.storage import tables
from raycl.storage.versions import Version

NOT_SHOWN = ("item", "train_count")
"""Columns of a release's catalogue that a hand-in has not, or has anyway."""
_AT_ONCE = 65_536


@dataclass(frozen=True)
class Handed:
    """Rows of the catalogue's table that are new or changed, and the ids of items that are gone."""

    id_column: str
    title_column: str | None
    items: pa.Table
    removed: Any = ()
    forgiving: bool = False
    """Whether a column that is not there is unknown, and an item that cannot be searched is left out: as with those
    that another release was given."""
    encode: tuple[Encoding, ...] = ()
    """Columns that the items have not yet, of vectors that the release's encoders make of their words."""


def table(built: Version, handed: Handed) -> tuple[pa.Table, pa.Table]:
    """What the release ``built`` is given: ``item``, ``removed``, ``vector`` and what is shown; and the items of it.

    The second table has the rows of ``handed.items`` that the first one has, as they came. InputError names the column
    or the item that cannot be taken.
    """
    catalogue = tables.read(built.store, release.CATALOGUE_FILE)
    known = IdMap(whole(catalogue["item"]))
    came, gone = ids(known, handed)
    made, usable = _embedded(built, known, came, handed)
    if not usable.all():
        if not handed.forgiving:
            raise InputError(
                f"item {came[int(np.argmin(usable))]} has a vector that is null or not finite: leave it out"
            )
        made, came = made[usable], came.filter(pa.array(usable))
    items = handed.items.filter(pa.array(usable))
    columns = {"item": pa.concat_arrays([came, gone])}
    columns["removed"] = pa.array(np.arange(len(came) + len(gone)) >= len(came))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(made.reshape(-1)), made.shape[1])
    columns["vector"] = pa.concat_arrays([flat, pa.nulls(len(gone), flat.type)])
    for field in catalogue.schema:
        if field.name not in NOT_SHOWN:
            source = handed.title_column if field.name == "title" else field.name
            given = _shown(items, str(source), field.type, handed.forgiving or not items.num_rows)
            columns[field.name] = pa.concat_arrays([given, pa.nulls(len(gone), field.type)])
    return pa.table(columns), items


def ids(known: IdMap, handed: Handed) -> tuple[Any, Any]:
    """Ids of the items and of those removed, of the type of the ``known`` ones; InputError for one that comes twice."""
    came = _cast(known, _column(handed.items, handed.id_column), handed.id_column)
    gone = _cast(known, handed.removed, "removed")
    _require_once(pa.concat_arrays([came, gone]))
    return came, gone


def _embedded(built: Version, known: IdMap, ids: Any, handed: Handed) -> tuple[Vectors, Any]:
    """Vectors (items, dim), of new items by their features alone, and which of them can be searched."""
    encoders = release.item_encoders(built.store)
    rows = torch.from_numpy(known.rows(ids).astype(np.int64))
    tower = weights.load_item(built.store.under(release.ITEM_TOWER))
    parts = [np.zeros((0, release.search_of(built.store).dim), dtype=np.float32)]
    with torch.inference_mode():
        for start in range(0, len(ids), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            encoded = _encoded(encoders, handed.items.slice(start, _AT_ONCE), handed.forgiving)
            given = inputs.from_table(encoded, encoders, len(some))
            parts.append(tower(some.clamp(min=0), given, some < 0).numpy())
    made: Vectors = np.concatenate(parts)
    return made, np.isfinite(made).all(axis=1) & made.any(axis=1)


def _encoded(encoders: Encoders, items: pa.Table, forgiving: bool) -> pa.Table:
    missing = [feature.column for feature in encoders.features if feature.column not in items.column_names]
    if missing and not forgiving:
        _column(items, missing[0])
    if missing:
        return encoders.encode_rows(items.to_pylist(), "items")
    return encoders.encode(items)


def _shown(items: pa.Table, name: str, kind: pa.DataType, forgiving: bool) -> Any:
    if forgiving and name not in items.column_names:
        return pa.nulls(items.num_rows, kind)
    given = whole(_column(items, name))
    try:
        return given.cast(kind)
    except pa.ArrowException as error:
        if forgiving:
            return pa.nulls(items.num_rows, kind)
        raise InputError(f"column '{name}' holds {given.type}, the release shows {kind}: {error}") from error


def _cast(known: IdMap, ids: Any, name: str) -> Any:
    """Ids of the type that the release's have; InputError for others, and for null."""
    given = whole(ids) if isinstance(ids, pa.ChunkedArray) else pa.array(ids)
    try:
        found = given.cast(known.ids.type)
    except pa.ArrowException as error:
        raise InputError(f"{name} holds {given.type}, ids of the release are {known.ids.type}: {error}") from error
    if found.null_count:
        raise InputError(f"{name} holds {found.null_count} ids that are null: leave these rows out")
    return found


def _require_once(ids: Any) -> None:
    counts = pc.value_counts(ids)
    more = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    if len(more):
        raise InputError(f"item {more[0]['values']} is handed in {more[0]['counts']} times: once, changed or removed")


def _column(items: pa.Table, name: str) -> Any:
    if name not in items.column_names:
        raise InputError(f"the handed-in items have no column '{name}'; they have {', '.join(items.column_names)}")
    return items[name]
