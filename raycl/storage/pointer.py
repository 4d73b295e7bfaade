"""Which release is current: numbered pointers that are created and never overwritten; the highest number wins."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from raycl.errors import RayclError
from raycl.storage import numbered
from raycl.storage.store import Store

FOLDER = "releases/published"
_THREADS = 8


@dataclass(frozen=True)
class Pointer:
    """The ``number``-th publication, naming ``release``."""

    number: int
    release: str


@dataclass(frozen=True)
class Publication:
    """A pointer, and when it was written."""

    pointer: Pointer
    at_s: float
    """Seconds since 1970 by the clock of the store."""


def current(store: Store) -> Pointer | None:
    """The publication with the highest number, or None before the first."""
    found = numbered.numbers(store.names(FOLDER))
    return _read(store, found[-1]) if found else None


def history(store: Store) -> list[Publication]:
    """Every publication, the first one first."""
    at_s = store.modified_s(FOLDER)
    with ThreadPoolExecutor(_THREADS) as pool:
        pointers = pool.map(lambda number: _read(store, number), numbered.numbers(at_s))
        return [Publication(pointer, at_s[numbered.name_of(pointer.number)]) for pointer in pointers]


def publish(store: Store, release: str) -> Pointer:
    """Make ``release`` current; publishing the one that is current already changes nothing.

    Two publishers cannot take one number: the loser of the race takes the next. RayclError where the store lets a
    second creation of one name through, since it could lose a publication silently.
    """
    _require_exclusive_create(store)
    while True:
        newest = current(store)
        if newest is not None and newest.release == release:
            return newest
        pointer = Pointer(newest.number + 1 if newest else 1, release)
        if store.create(_path(pointer.number), json.dumps({"release": release}).encode()):
            return pointer


def _read(store: Store, number: int) -> Pointer:
    return Pointer(number, str(json.loads(store.read(_path(number)))["release"]))


def _path(number: int) -> str:
    return f"{FOLDER}/{numbered.name_of(number)}"


def _require_exclusive_create(store: Store) -> None:
    probe = f"{FOLDER}/.probe-{uuid.uuid4().hex}"
    first, second = store.create(probe, b"1"), store.create(probe, b"2")
    store.delete(probe)
    if not first or second:
        raise RayclError(
            f"workspace={store.uri} overwrites a file that was to be created only once, so a publication could be"
            f" lost: use a store that honours If-None-Match"
        )
