"""What was handed in to one release and must not be lost with the next: carried over when that is published.

The catalogue, as the pairs of the next release read it, has the word on the items that it lists: what was handed in
before is folded in. An item that it never listed is carried over, and so is what was handed in after it was read. What
was removed stays so until the catalogue drops it too, or it is handed in again. The next release's own rules hold for
all of it: what is no item by its ``items.where`` is none, and vectors of words are those of its ``items.encode``.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from raycl.data.columns import whole
from raycl.data.handoff import Pairs
from raycl.data.id_map import IdMap
from raycl.errors import CorruptRelease, RayclError, StoreUnavailable
from raycl.index import deltas, release
from raycl.index.catalogue_rules import CatalogueRules
from raycl.index.delta_items import Handed
from raycl.index.deltas import Segment, Taken
from raycl.storage import pointer, tables
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace, begun_at

log = logging.getLogger(__name__)

STAGE = "releases"


class _Word(NamedTuple):
    """The newest word on an item."""

    at_s: float
    """When it was handed in."""
    gone: bool
    """Whether it says that the item is gone."""
    unlike: bool = False
    """Whether that is so since the next catalogue's rule is against it."""


_Words = dict[object, _Word]


@dataclass(frozen=True)
class _Move:
    """From one release to the next."""

    workspace: Workspace
    origin: Version
    target: Version
    before: CatalogueRules
    after: CatalogueRules


def before(store: Store, name: str) -> str | None:
    """The release that was current last before ``name`` was, or is while that is not published; None without one."""
    return next((one.pointer.release for one in reversed(pointer.history(store)) if one.pointer.release != name), None)


def over(workspace: Workspace, source: str | None, target: Version) -> int:
    """Hand in to ``target`` what of the release ``source`` it does not know; returns how many items that concerns.

    Each hand-in keeps its time, so to do this again carries nothing over. What cannot be read, or cannot be searched by
    the new tower, is left behind and logged. StoreUnavailable where the store does not answer.
    """
    store = workspace.store
    if source is None or not deltas.numbers(store, source):
        return 0
    try:
        origin = workspace.open(STAGE, source)
        taken = deltas.take(store, origin)
        move = _Move(workspace, origin, target, *(CatalogueRules.of(workspace, one) for one in (origin, target)))
    except StoreUnavailable:
        raise
    except RayclError as error:
        log.warning("what was handed in to release %s is not carried over: %s", source, error)
        return 0
    for problem in taken.problems.values():
        log.warning("not carried over: %s", problem)
    unlike = {number: _unlike(move, taken, number) for number in taken.holding}
    wanted = _wanted(move, taken, unlike)
    moved = [_moved(move, taken, number, wanted, unlike[number]) for number in taken.holding]
    if sum(moved):
        log.info("%d items that were handed in to release %s are carried over to %s", sum(moved), source, target.name)
    return sum(moved)


def _unlike(move: _Move, taken: Taken, number: int) -> frozenset[object]:
    """The items of a hand-in that are none by the new catalogue's rule."""
    segment = taken.segments[number]
    if not move.after.where or not segment.given:
        return frozenset()
    try:
        given = deltas.given_of(move.workspace.store, move.origin.name, number, segment)
    except CorruptRelease:
        return frozenset()  # told where it is to be moved
    ids = whole(given[segment.id_column]).cast(whole(taken.tables[number]["item"]).type)
    return frozenset(ids.filter(pa.array(move.after.unlike(given))).to_pylist())


def _wanted(move: _Move, taken: Taken, unlike: Mapping[int, Collection[object]]) -> _Words:
    """The newest words of the release before that the next one needs to be told."""
    words = _words(taken, unlike)
    there = deltas.take(move.workspace.store, move.target)
    told, heard = _words(there), _words(there, withdrawn=True)
    items = list(words)
    listed, listed_before = (_listed(move.workspace, one, items) for one in (move.target, move.origin))
    left_out = move.after.leaves_out(items)
    begun = begun_at(release.lineage_of(move.target.store).pairs)
    read_s = begun.timestamp() if begun else 0.0
    found: _Words = {}
    for (item, word), now, then, out in zip(words.items(), listed, listed_before, left_out, strict=True):
        if item in heard and heard[item].at_s >= word.at_s:
            continue
        newer, served = word.at_s > read_s, now if item not in told else not told[item].gone
        if word.unlike:
            needed = served and newer
        elif word.gone:
            needed = served
        else:
            needed = newer or not (now or then or out)
        if needed:
            found[item] = word
    return found


def _words(taken: Taken, unlike: Mapping[int, Collection[object]] | None = None, *, withdrawn: bool = False) -> _Words:
    """The newest word of each item; ``withdrawn``: also of hand-ins that were taken back."""
    found: _Words = {}
    for number in taken.in_order if withdrawn else taken.holding:
        for item, word in _said(taken, number, (unlike or {}).get(number, ())):
            found[item] = word
    return found


def _listed(workspace: Workspace, built: Version, items: list[object]) -> list[bool]:
    """Whether each item may be retrieved from a release alone; without its pairs, whether it is known there."""
    known = IdMap(whole(tables.read(built.store, release.CATALOGUE_FILE, ["item"])["item"]))
    try:
        rows = known.rows(pa.array(items).cast(known.ids.type))
    except pa.ArrowException:
        return [False] * len(items)
    try:
        retired = Pairs.of(workspace.open("pairs", release.lineage_of(built.store).pairs)).retired()
    except StoreUnavailable:
        raise
    except RayclError:
        retired = np.zeros(len(known), dtype=np.bool_)
    listed: list[bool] = ((rows >= 0) & ~np.append(retired, True)[rows]).tolist()
    return listed


def _said(taken: Taken, number: int, unlike: Collection[object]) -> list[tuple[object, _Word]]:
    """Every item of a hand-in with what that says of it; ``unlike`` are gone."""
    table, at_s = taken.tables[number], taken.segments[number].at_s
    removed = zip(table["item"].to_pylist(), table["removed"].to_pylist(), strict=True)
    return [(item, _Word(at_s, gone or item in unlike, item in unlike)) for item, gone in removed]


def _moved(move: _Move, taken: Taken, number: int, wanted: _Words, unlike: Collection[object]) -> int:
    """Hand in to the target the wanted words of one hand-in; returns how many items that are."""
    segment, kind = taken.segments[number], whole(taken.tables[number]["item"]).type
    mine = [(item, word) for item, word in _said(taken, number, unlike) if wanted.get(item) == word]
    gone = [item for item, word in mine if word.gone]
    came = [item for item, word in mine if not word.gone]
    items = pa.table({segment.id_column: pa.nulls(0, kind)})
    try:
        if came:
            items = _given(move, number, segment, pa.array(came, kind))
    except StoreUnavailable:
        raise
    except RayclError as error:
        told = len(came), number, move.origin.name, move.target.name, error
        log.warning("%d items of hand-in %d to release %s are not carried over to %s: %s", *told)
    if not items.num_rows and not gone:
        return 0
    handed = Handed(segment.id_column, segment.title_column, items, gone, forgiving=True)
    try:
        deltas.write(move.workspace.store, move.target, handed, segment.at_s)
    except StoreUnavailable:
        raise
    except RayclError as error:
        log.warning("hand-in %d to release %s is not carried over: %s", number, move.origin.name, error)
        return 0
    return int(items.num_rows) + len(gone)


def _given(move: _Move, number: int, segment: Segment, ids: Any) -> pa.Table:
    """These items of a hand-in as they were given, with vectors as the target's are made.

    CorruptRelease where the file is another now; what ``CatalogueRules.encoded`` raises.
    """
    items = deltas.given_of(move.workspace.store, move.origin.name, number, segment)
    places = IdMap(whole(items[segment.id_column]).cast(ids.type)).rows(ids)
    found = items.take(pa.array(places[places >= 0]))
    return move.after.encoded(found, move.after.other_columns(move.before))
