"""Handing in items to the current release, whichever that is by the time that they are there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raycl.config import ItemTable
from raycl.data import catalogue_tasks, sources
from raycl.data.columns import whole
from raycl.data.id_map import IdMap
from raycl.errors import InputError
from raycl.index import delta_items, deltas, item_words, joined, release
from raycl.index.delta_items import Handed
from raycl.index.releases import STAGE, moment
from raycl.storage import pointer, tables
from raycl.storage.versions import Version, Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What a hand-in does to the release as it is with all that was handed in before."""

    release: str
    number: int
    """Of the hand-in; 0 for none, as in a dry run."""
    new: int
    changed: int
    removed: int
    unknown: int
    """Ids to remove that the release does not answer with anyway."""


def read(items: ItemTable | None, uri: str | None, removed: Sequence[str], removed_uri: str | None) -> Handed:
    """The rows of the table at ``uri``, which has the columns of the config's ``items``, and the ids to remove.

    Vectors of the rows' words are made when they are handed in, by the encoders of the release.

    ``removed_uri`` is a table with ids in its column ``items.id_column``. InputError for a table that cannot be read,
    and where nothing is handed in.
    """
    if uri is None and removed_uri is None and not removed:
        raise InputError("nothing is handed in: give a table of items, --remove or --remove-from")
    if items is None:
        if uri is not None:
            raise InputError(f"ITEMS={uri}: the config has no items section, which says what its columns are: set it")
        items = ItemTable(uri="none", title_column=None)
    table = items.model_copy(update={"uri": uri or "", "format": "parquet", "version": None})
    given = pa.table({items.id_column: pa.array([], pa.int64())})
    gone: list[Any] = []
    if uri is not None:
        given, unwanted = _given(table)
        gone += [unwanted] if len(unwanted) else []
    if removed_uri is not None:
        nothing_else: dict[str, Any] = {"title_column": None, "features": (), "display": (), "where": {}, "encode": ()}
        listed = table.model_copy(update={"uri": removed_uri, **nothing_else})
        gone.append(whole(sources.open_items(listed).read([items.id_column])[items.id_column]))
    gone += [pa.array(list(removed), pa.large_string())] if removed or not gone else []
    return Handed(items.id_column, items.title_column, given, _of_one_type(gone), encode=items.encode)


def _given(table: ItemTable) -> tuple[pa.Table, Any]:
    """The rows that the config wants of a table, and the ids of the other rows.

    An item that is no longer like ``items.where`` is to be answered with no more.
    """
    source = sources.open_items(table)
    rows = source.read(list(source.types) if table.encode else catalogue_tasks.columns_of(table))
    wanted = catalogue_tasks.wanted(rows, table.where)
    return wanted, catalogue_tasks.unwanted(rows[table.id_column], wanted[table.id_column])


def _of_one_type(ids: Sequence[Any]) -> Any:
    """All of them as the first ones are; InputError for one that is no such id."""
    try:
        return pa.concat_arrays([part.cast(ids[0].type) for part in ids])
    except pa.ArrowException as error:
        raise InputError(f"--remove: ids of the tables are {ids[0].type}, and {error}") from error


def to_current(workspace: Workspace, handed: Handed, name: str | None = None, *, dry_run: bool = False) -> Summary:
    """Hand in to the current release, and again to the one that is published meanwhile.

    InputError for what cannot be taken, and where ``name`` is given and not current: then nothing is handed in.
    """
    while True:
        built = _current(workspace, name)
        found = _summary(workspace, built, handed)
        complete = item_words.complete(workspace, built, handed)
        if dry_run:
            delta_items.table(built, complete)
            return found
        workspace.store.require_writable()
        number = deltas.write(workspace.store, built, complete)
        now = pointer.current(workspace.store)
        if now is None or now.release == built.name:
            return Summary(**{**vars(found), "number": number})
        log.info("release %s took the place of %s meanwhile: handed in again", now.release, built.name)


def listed(workspace: Workspace, built: Version) -> list[dict[str, Any]]:
    """Every hand-in to a release, the first one first, and what is wrong with it."""
    taken = deltas.take(workspace.store, built)
    rows = []
    for number in sorted(taken.segments.keys() | taken.problems.keys()):
        row: dict[str, Any] = {"number": number, "at": "", "items": 0, "removed": 0, "state": ""}
        if (segment := taken.segments.get(number)) is not None:
            row |= {"at": moment(segment.at_s), "items": segment.num_items, "removed": segment.num_removed}
            row["state"] = f"takes back {segment.withdraws}" if segment.withdraws else "answers"
        if number in taken.withdrawn:
            row["state"] = "taken back"
        if number in taken.problems:
            row["state"] = f"refused: {taken.problems[number]}"
        rows.append(row)
    return rows


def _current(workspace: Workspace, name: str | None) -> Version:
    published = pointer.current(workspace.store)
    if published is None:
        raise InputError(f"workspace={workspace.store.uri} has no published release to hand items in to: publish one")
    if name is not None and name != published.release:
        raise InputError(
            f"--release {name} is not current, {published.release} is: items are handed in to the release that answers"
        )
    return workspace.open(STAGE, published.release)


def _summary(workspace: Workspace, built: Version, handed: Handed) -> Summary:
    catalogue = tables.read(built.store, release.CATALOGUE_FILE)
    taken = deltas.take(workspace.store, built)
    delta = joined.together(taken, catalogue, release.search_of(built.store).dim)
    known = IdMap(whole(catalogue["item"]))
    served = np.ones(len(known), dtype=np.bool_)
    served[delta.hidden] = False
    came = IdMap(whole(delta.shown["item"]))

    def answers(ids: Any) -> Any:
        rows = known.rows(ids)
        return ((rows >= 0) & np.append(served, False)[rows]) | (came.rows(ids) >= 0)

    ids, gone = delta_items.ids(known, handed)
    changed, removed = int(answers(ids).sum()), int(answers(gone).sum())
    return Summary(built.name, 0, len(ids) - changed, changed, removed, len(gone) - removed)
