"""The vocabulary in parts, by hash of the item's id: a task builds each, and a later one counts what became of it.

What passes through the driver is one number a part.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.data import vocabulary
from raycl.data.columns import whole
from raycl.data.hashing import bucket_of
from raycl.data.id_map import IdMap
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft, Record, Version

Rows = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

CATALOGUE_IDS = f"{WORK}/catalogue.parquet"
"""Ids of the present catalogue, ascending; absent where the log alone says which items there are."""

_ROWS_A_PART = 50_000_000
_COUNTED = ["train_count", "train_targets", *schema.SPLITS[1:]]


@dataclass(frozen=True)
class Known:
    """A vocabulary whose items keep their rows."""

    version: str
    """Name of the pairs version that it is of."""
    uri: str
    num_parts: int
    num_rows: int
    num_buckets: int
    """Files of sequences of the version."""

    def part(self, number: int, num_parts: int) -> pa.Table:
        """``item``, ``row``, ``retired`` and ``log_count`` of one of ``num_parts`` parts, in the order of the rows."""
        return read_part(Store(self.uri), self.num_parts, number, num_parts)


def read_part(store: Store, stored_parts: int, number: int, num_parts: int) -> pa.Table:
    """What a version with ``stored_parts`` says of the items in one of ``num_parts`` parts, in the order of the rows.

    Columns ``item``, ``row``, ``retired`` and ``log_count``.
    """
    columns = ["item", "row", "retired", "log_count"]
    if num_parts == stored_parts:
        return tables.read(store, schema.items_file(number), columns)
    table = pa.concat_tables(tables.read(store, schema.items_file(part), columns) for part in range(stored_parts))
    return table.filter(pa.array(bucket_of(table["item"], num_parts) == number)).sort_by("row")


def known(version: Version | None, item_type: pa.DataType) -> Known | None:
    """The vocabulary of a version, where there is one with ids of this type."""
    if version is None or version.manifest.columns["vocabulary"].get("item") != str(item_type):
        return None
    facts = version.manifest.facts.get("vocabulary")
    if not facts:
        return None
    num_buckets = len(version.manifest.facts["pairs_by_file"]["train"])
    return Known(version.name, version.store.uri, facts["parts"], facts["rows"], num_buckets)


@dataclass(frozen=True)
class Numbering:
    """Where the rows of new items begin in each part; those of known items stay what they are."""

    first_new: tuple[int, ...]
    num_rows: int
    num_active: int
    """Items that may be retrieved."""
    num_events: int
    """Their good rows in the log."""

    @classmethod
    def of(cls, parts: Sequence[Record], known: Known | None) -> Numbering:
        """The rows after all known ones go to the new items of the first part, then to those of the second, ..."""
        ends = np.cumsum([known.num_rows if known else 0, *(record["new"] for record in parts)]).tolist()
        active, events = (sum(record[name] for record in parts) for name in ("active", "events"))
        return cls(tuple(ends[:-1]), ends[-1], active, events)

    @property
    def num_parts(self) -> int:
        """Parts of the vocabulary."""
        return len(self.first_new)


def num_parts(num_rows: int, known: Known | None, *, has_catalogue: bool) -> int:
    """One part for every 50 million rows of the log; one alone where a catalogue, which is read whole, names the items.

    A vocabulary that goes on has the parts that it had, until it should have twice as many.
    """
    wanted = 1 if has_catalogue else max(1, -(-num_rows // _ROWS_A_PART))
    return known.num_parts if known and known.num_parts <= wanted < 2 * known.num_parts else wanted


def write_counts(store: Store, path: str, items: Any, positive: Any, parts: int, *, durable: bool) -> None:
    """Leave how often a fragment has each of the ``items`` in a ``positive`` event; 0 for what is only turned down."""
    counted = vocabulary.count_ids(positive)
    if len(positive) < len(items):
        others = pc.unique(whole(items).filter(pc.invert(pc.is_in(whole(items), value_set=whole(counted["item"])))))
        never = pa.table({"item": others, "count": np.zeros(len(others), dtype=np.int64)})
        counted = pa.concat_tables([counted, never])
    tables.write_buckets(store, path, counted, bucket_of(counted["item"], parts), parts, durable=durable)


def build_part(
    draft: Draft,
    part: int,
    num_parts: int,
    known: Known | None,
    counts: Sequence[tuple[Store, str]],
    min_events: int,
) -> Record:
    """Leave one part's items with their ``counts``, which ``write_counts`` left of each fragment.

    With a catalogue its items alone may be retrieved, else all items with ``min_events`` good rows in the log.
    """
    task = f"vocabulary-{part:05d}"
    if (record := draft.task_done(task)) is not None:
        return record
    store = draft.store
    counted = vocabulary.merge_counts(tables.read_bucket(where, path, part) for where, path in counts)
    if store.exists(CATALOGUE_IDS):
        wanted = whole(tables.read(store, CATALOGUE_IDS)["item"])
    else:
        wanted = whole(counted["item"]).filter(pa.array(counted["count"].to_numpy() >= max(min_events, 1)))
    before = known.part(part, num_parts) if known else schema.vocabulary(wanted.type).empty_table()
    table = vocabulary.extend(before, wanted, counted)
    tables.write(store, _part_file(part), table)
    tables.write(store, _flipped_file(part), pa.table({"item": _flipped(before, table, min_events)}))
    active = ~table["retired"].to_numpy()
    record = {
        "new": table["row"].null_count,
        "active": int(active.sum()),
        "events": int(table["log_count"].to_numpy()[active].sum()),
    }
    draft.finish_task(task, record)
    return record


@dataclass(frozen=True)
class Part:
    """One part of the vocabulary, numbered."""

    ids: IdMap
    rows: Rows
    """(items,) ascending"""
    usable: Rows
    """(items + 1,) the row of each item that pairs may hold, -1 for the others and for an item that is not there"""


@dataclass(frozen=True)
class Items:
    """Which row an item has, for the events of a bucket; all parts are held by the process that asks."""

    store: Store
    numbering: Numbering
    min_events: int
    """Items with fewer good rows in the log have no row in pairs."""

    def __len__(self) -> int:
        return self.numbering.num_rows

    def rows(self, ids: Any) -> Rows:
        """The row of each id, -1 for one that pairs may not hold."""
        ids = whole(ids)
        if self.numbering.num_parts == 1:
            part = _part(self, 0)
            return part.usable[part.ids.rows(ids)]
        rows = np.full(len(ids), -1, dtype=np.int32)
        for number, places in enumerate(self._by_part(bucket_of(ids, self.numbering.num_parts))):
            part = _part(self, number)
            rows[places] = part.usable[part.ids.rows(ids.take(pa.array(places)))]
        return rows

    def ids_of(self, rows: Any) -> Any:
        """The id of each row."""
        rows = np.asarray(rows)
        parts = self.parts_of(rows)
        found, order = [], []
        for number, places in enumerate(self._by_part(parts)):
            part = _part(self, number)
            found.append(part.ids.ids.take(pa.array(np.searchsorted(part.rows, rows[places]))))
            order.append(places)
        return pa.concat_arrays(found).take(pa.array(np.argsort(np.concatenate(order))))

    def parts_of(self, rows: Any) -> npt.NDArray[np.int64]:
        """The part of each row."""
        return np.asarray(_owners(self)[rows], dtype=np.int64)

    def _by_part(self, parts: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        ends = np.cumsum(np.bincount(parts, minlength=self.numbering.num_parts))[:-1]
        return np.split(np.argsort(parts, kind="stable"), ends)


def count_part(
    store: Store, part: int, numbering: Numbering, buckets: Sequence[str]
) -> tuple[pa.Table, dict[str, npt.NDArray[np.int64]]]:
    """Write one part of the finished vocabulary from what the tasks of all ``buckets`` counted.

    Returns it, and how often each of its items is a target of ``val`` and of ``test``.
    """
    table = _numbered(store, part, numbering.first_new[part])
    rows = table["row"].to_numpy()
    counted = (tables.read_bucket(store, _bucket_counts(task), part) for task in buckets)
    local = (one.set_column(0, "item", pa.array(np.searchsorted(rows, one["item"].to_numpy()))) for one in counted)
    totals = vocabulary.sum_by_row(local, _COUNTED, len(rows))
    held_out = {name: totals.pop(name) for name in schema.SPLITS[1:]}
    for name, total in totals.items():
        table = table.append_column(name, pa.array(total))
    table = table.select(schema.vocabulary(table.schema.field("item").type).names)
    tables.write(store, schema.items_file(part), table)
    return table, held_out


def write_bucket_counts(store: Store, task: str, counted: pa.Table, items: Items) -> str:
    """Leave what a bucket counted of each vocabulary row in ``item``; returns the path, which is not yet durable."""
    parts, path = items.parts_of(counted["item"].to_numpy()), _bucket_counts(task)
    tables.write_buckets(store, path, counted, parts, items.numbering.num_parts, durable=False)
    return path


def flipped_items(store: Store, num_parts: int) -> Any:
    """Ids of items that pairs may hold and could not in the version before, or the other way round."""
    return pa.concat_arrays([whole(tables.read(store, _flipped_file(part))["item"]) for part in range(num_parts)])


def _flipped(before: pa.Table, now: pa.Table, min_events: int) -> Any:
    """New items are among them: the version before may have had events of one and not held it."""
    could, may = (_usable(table, min_events) for table in (before, now))
    return whole(now["item"]).filter(pa.array(may != np.append(could, np.zeros(len(may) - len(could), dtype=np.bool_))))


def _usable(table: pa.Table, min_events: int) -> Flags:
    """Of each item, whether pairs may hold it."""
    return np.asarray(~table["retired"].to_numpy() & (table["log_count"].to_numpy() >= min_events))


def _numbered(store: Store, part: int, first_new: int) -> pa.Table:
    """What ``build_part`` left, each item with its row, in the order of the rows."""
    table = tables.read(store, _part_file(part))
    is_new = table["row"].is_null().to_numpy()
    numbered = np.where(is_new, first_new + np.cumsum(is_new) - 1, table["row"].fill_null(0)).astype(np.int32)
    return table.set_column(table.schema.get_field_index("row"), "row", pa.array(numbered))


@functools.lru_cache(maxsize=256)
def _part(items: Items, number: int) -> Part:
    table = _numbered(items.store, number, items.numbering.first_new[number])
    rows = table["row"].to_numpy()
    usable = np.where(_usable(table, items.min_events), rows, -1)
    return Part(IdMap(whole(table["item"])), rows, np.append(usable, -1).astype(np.int32))


@functools.lru_cache(maxsize=1)
def _owners(items: Items) -> npt.NDArray[np.uint16]:
    owners = np.zeros(len(items), dtype=np.uint16)
    for number in range(1, items.numbering.num_parts):
        owners[_part(items, number).rows] = number
    return owners


def _part_file(part: int) -> str:
    return f"{WORK}/items/part-{part:05d}.parquet"


def _flipped_file(part: int) -> str:
    return f"{WORK}/items/flipped-{part:05d}.parquet"


def _bucket_counts(task: str) -> str:
    return f"{WORK}/counts/{task}.arrow"
