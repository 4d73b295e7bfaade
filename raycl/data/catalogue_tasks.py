"""The item and user tables of a run, encoded as the later stages read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.config import Config, ItemTable
from raycl.data import features, vocabulary
from raycl.data.columns import whole
from raycl.data.id_map import IdMap
from raycl.data.sources import Inputs
from raycl.data.vocabulary_tasks import CATALOGUE_IDS, Known
from raycl.errors import InputError
from raycl.storage import tables
from raycl.storage.store import Store


def write(store: Store, config: Config, inputs: Inputs, known: Known | None) -> dict[str, int]:
    """Write what the item and user tables hold, encoded, and the ids that they know; return what was set aside.

    Items have the rows that the vocabulary will give them: those that are ``known`` keep theirs, and have nothing but
    their id where the table has them no more.
    """
    counts: dict[str, int] = {}
    fitted = {"items": features.Encoders(), "users": features.Encoders()}
    if config.items and inputs.items:
        fitted["items"] = _write_items(store, config.items, inputs, known, counts)
    if config.users and inputs.users:
        wanted = dict.fromkeys([config.users.id_column, *(feature.column for feature in config.users.features)])
        table = _distinct(inputs.users.read(list(wanted)), config.users.id_column, inputs.user_type, "users", counts)
        fitted["users"] = features.Encoders.fit(config.users.features, table)
        listed = {"user": table[config.users.id_column]}
        if config.users.features:
            listed["features"] = fitted["users"].plain(table)
        tables.write(store, schema.USERS_FILE, pa.table(listed))
        encoded = fitted["users"].encode(table)
        counts |= _unusable(fitted["users"], table, encoded, "users")
        tables.write(store, schema.USER_FEATURES_FILE, encoded)
    plain = {kind: encoders.to_json() for kind, encoders in fitted.items()}
    store.write(schema.FEATURES_FILE, json.dumps(plain).encode())
    return counts


def _write_items(
    store: Store, items: ItemTable, inputs: Inputs, known: Known | None, counts: dict[str, int]
) -> features.Encoders:
    assert inputs.items is not None
    read = inputs.items.read(columns_of(items))
    table = wanted(read, items.where)
    if items.where:
        counts["items_unwanted"] = read.num_rows - table.num_rows
        left_out = unwanted(read[items.id_column], table[items.id_column])
        tables.write(store, schema.UNWANTED_FILE, pa.table({"item": left_out.cast(inputs.item_type)}))
    table = _distinct(table, items.id_column, inputs.item_type, "items", counts)
    if not table.num_rows:
        asked = "items.where, which none of its rows is like, and " if items.where else ""
        raise InputError(f"items.uri={items.uri} holds no item with an id: check {asked}items.id_column")
    fitted = features.Encoders.fit(items.features, table)
    ids = whole(table[items.id_column])
    tables.write(store, CATALOGUE_IDS, pa.table({"item": ids}))
    rows, places = _placed(ids, whole(known.part(0, 1)["item"]) if known else ids[:0])
    table = table.take(places)
    shown = {"item": rows}
    if items.title_column:
        shown["title"] = table[items.title_column].cast(pa.large_string())
    shown |= {name: table[name] for name in items.display}
    tables.write(store, schema.CATALOGUE_FILE, pa.table(shown))
    encoded, listed = fitted.encode(table), pc.is_valid(places)
    counts |= _unusable(fitted, table.filter(listed), encoded.filter(listed), "items")
    tables.write(store, schema.ITEM_FEATURES_FILE, encoded)
    return fitted


def wanted(table: pa.Table, where: Mapping[str, Any]) -> pa.Table:
    """The rows that have these values by column; InputError for a value of another type than its column."""
    for name, value in where.items():
        column = whole(table[name])
        if value is None:
            table = table.filter(column.is_null())
            continue
        try:
            alike = pc.equal(column, pa.scalar(value).cast(column.type))
        except pa.ArrowException as error:
            raise InputError(
                f"items.where.{name}={value}: the column is of type {column.type} ({error}); give a value of that type"
            ) from error
        table = table.filter(alike)
    return table


def unwanted(ids: Any, kept: Any) -> Any:
    """Those of ``ids``, each once, of which no row is ``kept``."""
    every = whole(ids)
    return pc.unique(every.filter(pc.and_(pc.is_valid(every), pc.invert(pc.is_in(every, value_set=whole(kept))))))


def _placed(ids: Any, known: Any) -> tuple[Any, Any]:
    """The ids of all rows, known ones first, and the place of each among ``ids``, null for those that are not there."""
    new = pc.indices_nonzero(pc.invert(pc.is_in(ids, value_set=known))).cast(pa.int64())
    places = IdMap(ids).rows(known).astype(np.int64)
    kept = pa.array(places, mask=places < 0)
    return pa.concat_arrays([known, ids.take(new)]), pa.concat_arrays([kept, new])


def columns_of(items: ItemTable) -> list[str]:
    """The columns of a catalogue that are read at all, its ids first."""
    title = [items.title_column] if items.title_column else []
    named = [items.id_column, *title, *(feature.column for feature in items.features), *items.where, *items.display]
    return list(dict.fromkeys(named))


def _distinct(table: pa.Table, column: str, wanted: pa.DataType, kind: str, counts: dict[str, int]) -> pa.Table:
    """One row an id; rows without id and repeated ids are counted under the table's name."""
    chosen, missing, repeated = vocabulary.first_of_each(table, column, wanted)
    counts |= {f"{kind}_without_id": missing, f"{kind}_repeated": repeated}
    return chosen


def _unusable(fitted: features.Encoders, table: pa.Table, encoded: pa.Table, kind: str) -> dict[str, int]:
    return {f"{kind}_{name}": count for name, count in fitted.unusable(table, encoded).items()}
