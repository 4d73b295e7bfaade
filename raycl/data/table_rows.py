"""Columns of the item and user tables by row of the pairs, for later stages that read more than the pairs hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from raycl import schema
from raycl.config import Config, TableSource
from raycl.data import column_types, sources, vocabulary
from raycl.data.columns import whole
from raycl.data.drift import Column
from raycl.data.handoff import Pairs
from raycl.data.id_map import IdMap
from raycl.storage import tables


def of_items(config: Config, pairs: Pairs, wanted: Sequence[Column]) -> list[Any]:
    """The wanted columns of the item table by row of the vocabulary, null for an item that the table has not.

    InputError where the table cannot be read or lacks one.
    """
    assert config.items is not None
    return _read("items", config.items, config.items.id_column, wanted, whole(pairs.vocabulary()["item"]))


def of_users(config: Config, pairs: Pairs, wanted: Sequence[Column]) -> list[Any]:
    """The wanted columns of the user table by row of the users that the pairs know; as ``of_items``."""
    assert config.users is not None
    known = whole(tables.read(pairs.store, schema.USERS_FILE, ["user"])["user"])
    return _read("users", config.users, config.users.id_column, wanted, known)


def shown(config: Config, pairs: Pairs) -> pa.Table:
    """What an answer shows of each item under this config: ``item``, ``title``, and the columns of ``items.display``.

    The pairs hold the columns that were displayed when they were made; any other is read of the item table now.
    """
    held = pairs.catalogue()
    if config.items is None:
        return held
    display = config.items.display
    table = held.select([name for name in ("item", "title") if name in held.column_names])
    wanted = [
        Column(f"items.display.{position}", name, column_types.SHOWN)
        for position, name in enumerate(display)
        if name not in held.column_names
    ]
    found = dict(
        zip((column.name for column in wanted), of_items(config, pairs, wanted) if wanted else [], strict=True)
    )
    for name in display:
        table = table.append_column(name, found[name] if name in found else held[name])
    return table


def _read(field: str, table: TableSource, id_column: str, wanted: Sequence[Column], known: Any) -> list[Any]:
    source = sources.open_columns(field, table, [Column(f"{field}.id_column", id_column, column_types.ID), *wanted])
    named = list(dict.fromkeys([id_column, *(column.name for column in wanted)]))
    found, _, _ = vocabulary.first_of_each(source.read(named), id_column, known.type)
    rows = IdMap(whole(found[id_column])).rows(known)
    places = pa.array(rows, mask=rows < 0)
    return [_plain(whole(found[column.name])).take(places) for column in wanted]


def _plain(column: Any) -> Any:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
