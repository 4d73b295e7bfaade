"""What was handed in to one release and must not be lost with the next: carried over when that is published.

The catalogue, as the pairs of the next release read it, has the word on the items that it lists: what was handed in
before is folded in. An item that it never listed is carried over, and so is what was handed in after it was read. What
was removed stays so until the catalogue drops it too, or it is handed in again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from raycl.data.columns import whole
from raycl.data.handoff import Pairs
from raycl.data.id_map import IdMap
from raycl.errors import CorruptRelease, RayclError
from raycl.index import deltas, item_words, release
from raycl.index.delta_items import Handed
from raycl.index.deltas import Taken
from raycl.storage import pointer, tables
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace, begun_at

log = logging.getLogger(__name__)

STAGE = "releases"
_Words = dict[object, tuple[float, bool]]
"""By item: when its newest word was handed in, and whether that is that it is gone."""


def before(store: Store, name: str) -> str | None:
    """The release that was current last before ``name`` was, or is while that is not published; None without one."""
    return next((one.pointer.release for one in reversed(pointer.history(store)) if one.pointer.release != name), None)


def over(workspace: Workspace, source: str | None, target: Version) -> int:
    """Hand in to ``target`` what of the release ``source`` it does not know; returns how many items that concerns.

    Each hand-in keeps its time, so to do this again carries nothing over. What cannot be read, or cannot be searched by
    the new tower, is left behind and logged.
    """
    store = workspace.store
    if source is None or not deltas.numbers(store, source):
        return 0
    try:
        origin = workspace.open(STAGE, source)
        taken = deltas.take(store, origin)
    except RayclError as error:
        log.warning("what was handed in to release %s is not carried over: %s", source, error)
        return 0
    for problem in taken.problems.values():
        log.warning("not carried over: %s", problem)
    wanted = _wanted(workspace, origin, target, taken)
    again = item_words.again(workspace, origin, target)
    moved = [_moved(store, source, target, taken, number, wanted, again) for number in taken.holding]
    if sum(moved):
        log.info("%d items that were handed in to release %s are carried over to %s", sum(moved), source, target.name)
    return sum(moved)


def _wanted(workspace: Workspace, origin: Version, target: Version, taken: Taken) -> _Words:
    """The newest words of ``origin`` that ``target`` needs to be told."""
    words = _words(taken)
    there = deltas.take(workspace.store, target)
    told, heard = _words(there), _words(there, withdrawn=True)
    listed, listed_before = (_listed(workspace, one, list(words)) for one in (target, origin))
    begun = begun_at(release.lineage_of(target.store).pairs)
    read_s = begun.timestamp() if begun else 0.0
    found: _Words = {}
    for (item, (at_s, gone)), now, then in zip(words.items(), listed, listed_before, strict=True):
        if item in heard and heard[item][0] >= at_s:
            continue
        served = now if item not in told else not told[item][1]
        if served if gone else at_s > read_s or not (now or then):
            found[item] = (at_s, gone)
    return found


def _words(taken: Taken, *, withdrawn: bool = False) -> _Words:
    """The newest word of each item; ``withdrawn``: also of hand-ins that were taken back."""
    found: _Words = {}
    for number in taken.in_order if withdrawn else taken.holding:
        table, at_s = taken.tables[number], taken.segments[number].at_s
        for item, gone in zip(table["item"].to_pylist(), table["removed"].to_pylist(), strict=True):
            found[item] = (at_s, gone)
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
    except RayclError:
        retired = np.zeros(len(known), dtype=np.bool_)
    listed: list[bool] = ((rows >= 0) & ~np.append(retired, True)[rows]).tolist()
    return listed


def _moved(
    store: Store,
    source: str,
    target: Version,
    taken: Taken,
    number: int,
    wanted: _Words,
    again: Callable[[pa.Table], pa.Table],
) -> int:
    """Hand in to ``target`` the wanted words of one hand-in; returns how many items that are."""
    segment, table = taken.segments[number], taken.tables[number]
    word = [(segment.at_s, gone) for gone in table["removed"].to_pylist()]
    mine = [item for item, said in zip(table["item"].to_pylist(), word, strict=True) if wanted.get(item) == said]
    if not mine:
        return 0
    gone = [item for item in mine if wanted[item][1]]
    came = [item for item in mine if not wanted[item][1]]
    items = pa.table({segment.id_column: whole(table["item"]).slice(0, 0)})
    if came:
        try:
            items = deltas.given_of(store, source, number, segment)
        except CorruptRelease as error:
            log.warning("not carried over: %s", error)
        kind = whole(table["item"]).type
        places = IdMap(whole(items[segment.id_column].cast(kind))).rows(pa.array(came, kind))
        items = items.take(pa.array(places[places >= 0]))
    try:
        items = again(items) if came else items
        handed = Handed(segment.id_column, segment.title_column, items, gone, forgiving=True)
        deltas.write(store, target, handed, segment.at_s)
    except RayclError as error:
        log.warning("hand-in %d to release %s is not carried over: %s", number, source, error)
        return 0
    return len(mine)
