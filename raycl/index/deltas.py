"""What joins a release between two nights: segments of new, changed and removed items, embedded with its item tower.

deltas/<release>/<random>.parquet   an item a row: ``item``, ``removed``, ``vector``, and what an answer shows of it
deltas/<release>/000001.json        makes that file the first segment; created, never overwritten, after the file

Readers go by the numbers: a segment is seen whole or not at all, and of an item what the highest number says holds. The
next build reads the catalogue itself, so its release begins without segments, and pruning a release removes its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from raycl.config import ItemTable
from raycl.data.columns import whole
from raycl.data.features import Encoders
from raycl.data.id_map import IdMap
from raycl.errors import CorruptRelease, InputError
from raycl.index import release
from raycl.index.search import Ids, Vectors
from raycl.model import inputs, weights
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Version

FOLDER = "deltas"
_SEGMENT = re.compile(r"(\d{6})\.json")
_NOT_SHOWN = ("item", "train_count")
"""Columns of a release's catalogue that a segment has not, or has anyway."""
_THREADS = 8


@dataclass(frozen=True)
class Segment:
    """One hand-in of items: where it lies, and which tower made its vectors."""

    data: str
    sha256: str
    item_tower: str
    num_items: int
    num_removed: int


@dataclass(frozen=True)
class Delta:
    """All segments of a release together, as ``delta_search`` reads them."""

    number: int
    """The newest segment; 0 without any."""
    hidden: Ids
    """Rows of the release that no longer hold, ascending: of items that changed or are gone."""
    rows: Ids
    """The row of each vector, ascending: a changed item keeps its own, new ones follow those of the release."""
    vectors: Vectors
    """(rows, dim)"""
    shown: pa.Table
    """``item`` and what an answer shows of it, of each row of ``rows``."""


def write(workspace: Store, built: Version, how: ItemTable, items: pa.Table, removed: Any) -> int:
    """Hand in ``items``, rows of the catalogue's table that are new or changed, and the ids of those ``removed``.

    Returns the segment's number, under which servers see it. InputError names the column or the item that cannot be
    taken; then nothing is handed in.
    """
    catalogue = tables.read(built.store, release.CATALOGUE_FILE)
    known = IdMap(whole(catalogue["item"]))
    ids, gone = _ids(known, items, how.id_column), _cast(known, removed, "removed")
    _require_once(pa.concat_arrays([ids, gone]))
    columns = {"item": pa.concat_arrays([ids, gone])}
    columns["removed"] = pa.array(np.arange(len(ids) + len(gone)) >= len(ids))
    made = _embedded(built, known, ids, items)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(made.reshape(-1)), made.shape[1])
    columns["vector"] = pa.concat_arrays([flat, pa.nulls(len(gone), flat.type)])
    for field in catalogue.schema:
        if field.name not in _NOT_SHOWN:
            source = how.title_column if field.name == "title" else field.name
            given = _column(items, str(source)).cast(field.type)
            columns[field.name] = pa.concat_arrays([whole(given), pa.nulls(len(gone), field.type)])
    stream = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), stream, compression="zstd")
    content = stream.getvalue().to_pybytes()
    folder = workspace.under(f"{FOLDER}/{built.name}")
    data = f"{uuid.uuid4().hex}.parquet"
    folder.write(data, content)
    tower = built.manifest.checksums[f"{release.ITEM_TOWER}/{weights.ITEM_FILE}"]
    segment = Segment(data, hashlib.sha256(content).hexdigest(), tower, len(ids), len(gone))
    number = newest(workspace, built.name) + 1
    while not folder.create(f"{number:06d}.json", json.dumps(asdict(segment)).encode()):
        number += 1
    return number


def newest(workspace: Store, name: str) -> int:
    """Number of the newest segment of a release, 0 without any: one listing, for those who poll."""
    return max(_numbers(workspace.under(f"{FOLDER}/{name}")), default=0)


def load(workspace: Store, built: Version) -> Delta:
    """All segments of a release together.

    CorruptRelease, naming the file, for one that is not as it was handed in, or whose vectors another tower made.
    """
    folder = workspace.under(f"{FOLDER}/{built.name}")
    numbers = sorted(_numbers(folder))
    tower = built.manifest.checksums[f"{release.ITEM_TOWER}/{weights.ITEM_FILE}"]
    with ThreadPoolExecutor(_THREADS) as pool:
        segments = list(pool.map(lambda number: _read(folder, number, tower), numbers))
    catalogue = tables.read(built.store, release.CATALOGUE_FILE)
    return _together(numbers[-1] if numbers else 0, segments, catalogue, release.search_of(built.store).dim)


def _together(number: int, segments: list[pa.Table], catalogue: pa.Table, dim: int) -> Delta:
    base = IdMap(whole(catalogue["item"]))
    shown = catalogue.schema.remove(catalogue.schema.get_field_index("train_count"))
    if not segments:
        nothing = np.zeros(0, dtype=np.int64)
        return Delta(number, nothing, nothing, np.zeros((0, dim), dtype=np.float32), shown.empty_table())
    every = pa.concat_tables(segments)
    ids = whole(every["item"])
    row = base.rows(ids).astype(np.int64)
    first = pc.unique(ids.filter(pa.array(row < 0)))  # in the order in which they came, so that a row never changes
    row = np.where(row < 0, len(base) + IdMap(first).rows(ids), row) if len(first) else row
    rows, places = np.unique(row[::-1], return_index=True)  # of each item the newest
    places = len(row) - 1 - places
    stays = ~whole(every["removed"]).to_numpy(zero_copy_only=False)[places]
    held = every.take(pa.array(places[stays]))
    vectors = whole(held["vector"]).flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return Delta(number, rows[rows < len(base)], rows[stays], vectors, held.select(shown.names))


def _read(folder: Store, number: int, tower: str) -> pa.Table:
    path = f"{number:06d}.json"
    try:
        segment = Segment(**json.loads(folder.read(path)))
        content = folder.read(segment.data)
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise CorruptRelease(f"{folder.uri}/{path} cannot be read ({error}): hand its items in again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != segment.sha256:
        raise CorruptRelease(
            f"{folder.uri}/{segment.data} has SHA-256 {found[:12]}, {path} says {segment.sha256[:12]}: the file was"
            f" altered or cut short; hand the items in again"
        )
    if segment.item_tower != tower:
        raise CorruptRelease(
            f"{folder.uri}/{path} has vectors of item tower {segment.item_tower[:12]}, the release has {tower[:12]}:"
            f" hand the items in again"
        )
    return pq.read_table(pa.BufferReader(content))


def _embedded(built: Version, known: IdMap, ids: Any, items: pa.Table) -> Vectors:
    """Vectors (items, dim), of new items by their features alone; InputError for one that cannot be searched."""
    encoders = Encoders.from_json(json.loads(built.store.read(release.ITEM_FEATURES_FILE)))
    for feature in encoders.features:
        _column(items, feature.column)
    rows = torch.from_numpy(known.rows(ids).astype(np.int64))
    tower = weights.load_item(built.store.under(release.ITEM_TOWER))
    with torch.inference_mode():
        given = inputs.from_table(encoders.encode(items), encoders, len(ids))
        made: Vectors = tower(rows.clamp(min=0), given, rows < 0).numpy()
    usable = np.isfinite(made).all(axis=1) & made.any(axis=1)
    if not usable.all():
        raise InputError(f"item {ids[int(np.argmin(usable))]} has a vector that is null or not finite: leave it out")
    return made


def _ids(known: IdMap, items: pa.Table, column: str) -> Any:
    return _cast(known, _column(items, column), column)


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


def _numbers(folder: Store) -> list[int]:
    return [int(found[1]) for name in folder.names("") if (found := _SEGMENT.fullmatch(name))]
