"""What joins a release between two nights: hand-ins of new, changed and removed items, as files beside the release.

deltas/<release>/<random>.parquet   an item a row: ``item``, ``removed``, ``vector``, and what an answer shows of it
deltas/<release>/<random>.parquet   the same items as they were given, for the release that comes next
deltas/<release>/000001.json        makes these files the first hand-in; created, never overwritten, after the files

Readers go by the numbers: a hand-in is seen whole or not at all. Of an item the newest word holds, by the time of the
hand-in and then by its number. Pruning a release removes its own.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from raycl.errors import CorruptRelease, InputError, StoreUnavailable
from raycl.index import delta_items, release
from raycl.index.delta_items import Handed
from raycl.model import weights
from raycl.storage import numbered
from raycl.storage.store import Store
from raycl.storage.versions import Version

FOLDER = "deltas"
_THREADS = 8


@dataclass(frozen=True)
class Segment:
    """One hand-in: what it extends, when it came, and where its files lie."""

    release: str
    item_tower: str
    """SHA-256 of the tower that made its vectors."""
    at_s: float
    """Seconds since 1970 at which its items were first handed in; later for a later number, unless it was carried over
    from another release."""
    num_items: int = 0
    num_removed: int = 0
    data: str = ""
    sha256: str = ""
    given: str = ""
    """File of the items as they were given; none where only some are removed."""
    given_sha256: str = ""
    id_column: str = ""
    title_column: str | None = None
    withdraws: int = 0
    """Number of the hand-in that this one takes back; such a one has no items."""


@dataclass(frozen=True)
class Taken:
    """The hand-ins of a release that were read, by number, and what is wrong with the others."""

    segments: Mapping[int, Segment] = field(default_factory=dict)
    tables: Mapping[int, pa.Table] = field(default_factory=dict)
    problems: Mapping[int, str] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The newest one that was read, 0 without any."""
        return max(self.segments, default=0)

    @property
    def in_order(self) -> list[int]:
        """Numbers of those that have items, the oldest words first."""
        return sorted(self.tables, key=lambda number: (self.segments[number].at_s, number))

    @property
    def withdrawn(self) -> set[int]:
        """Numbers of those that were taken back, whether they can be read or not."""
        return {segment.withdraws for segment in self.segments.values()} - {0}

    @property
    def holding(self) -> list[int]:
        """Of ``in_order`` those that were not taken back."""
        return [number for number in self.in_order if number not in self.withdrawn]


def write(workspace: Store, built: Version, handed: Handed, at_s: float | None = None) -> int:
    """Hand in items to the release ``built``; returns the number under which servers see them, 0 without any item.

    ``at_s`` is when they were first handed in, by default now. InputError names the column or the item that cannot be
    taken; then nothing is handed in.
    """
    table, given = delta_items.table(built, handed)
    if not table.num_rows:
        return 0
    folder = folder_of(workspace, built.name)
    data, sha256 = _put(folder, table)
    kept, of_kept = _put(folder, given) if given.num_rows else ("", "")
    segment = Segment(
        release=built.name,
        item_tower=tower_of(built),
        at_s=at_s or 0.0,
        num_items=given.num_rows,
        num_removed=table.num_rows - given.num_rows,
        data=data,
        sha256=sha256,
        given=kept,
        given_sha256=of_kept,
        id_column=handed.id_column,
        title_column=handed.title_column,
    )
    return _create(folder, segment, now=at_s is None)


def withdraw(workspace: Store, built: Version, number: int) -> int:
    """Take a hand-in back, as if it had not been, and return the number under which servers see that.

    InputError where there is no such hand-in, or it was taken back before. Its files need not be readable.
    """
    folder = folder_of(workspace, built.name)
    taken = take(workspace, built)
    there = sorted((taken.tables.keys() | taken.problems.keys()) - taken.withdrawn)
    if number not in there:
        named = ", ".join(map(str, there)) or "none"
        raise InputError(f"{folder.uri} has no hand-in {number} to take back; it has {named}: see 'raycl delta list'")
    return _create(folder, Segment(built.name, tower_of(built), 0.0, withdraws=number), now=True)


def folder_of(workspace: Store, name: str) -> Store:
    """Where the hand-ins of a release lie."""
    return workspace.under(f"{FOLDER}/{name}")


def tower_of(built: Version) -> str:
    """SHA-256 of the item tower of a release."""
    return built.manifest.checksums[f"{release.ITEM_TOWER}/{weights.ITEM_FILE}"]


def numbers(workspace: Store, name: str) -> list[int]:
    """Numbers of the hand-ins of a release, ascending: one listing, for those who poll."""
    return numbered.numbers(folder_of(workspace, name).names(""))


def take(workspace: Store, built: Version, before: Taken | None = None) -> Taken:
    """All hand-ins of a release, those that ``before`` has without reading them again.

    One that is not as it was handed in, or that extends another release or tower, is left out and named in
    ``problems``, unless it was taken back. StoreUnavailable where the store cannot be read.
    """
    before = before or Taken()
    folder, tower = folder_of(workspace, built.name), tower_of(built)
    settled = before.segments.keys() | before.withdrawn
    new = [number for number in numbers(workspace, built.name) if number not in settled]
    with ThreadPoolExecutor(_THREADS) as pool:
        read = dict(zip(new, pool.map(lambda number: _read(folder, number, built.name, tower), new), strict=True))
    segments = {**before.segments, **{number: one.segment for number, one in read.items() if one.segment}}
    held = {**before.tables, **{number: one.table for number, one in read.items() if one.table is not None}}
    taken = Taken(segments, held)
    problems = {number: one.problem for number, one in read.items() if one.problem and number not in taken.withdrawn}
    return replace(taken, problems=problems)


def given_of(workspace: Store, name: str, number: int, segment: Segment) -> pa.Table:
    """The items of a hand-in as they were given; CorruptRelease, naming the file, where it is another now."""
    return _checked(folder_of(workspace, name), number, segment.given, segment.given_sha256)


@dataclass(frozen=True)
class _Read:
    segment: Segment | None = None
    table: pa.Table | None = None
    problem: str = ""


def _read(folder: Store, number: int, name: str, tower: str) -> _Read:
    try:
        segment = _segment(folder, number)
        if (segment.release, segment.item_tower) != (name, tower):
            raise CorruptRelease(
                f"{folder.uri}/{numbered.name_of(number)} extends release {segment.release} by item tower"
                f" {segment.item_tower[:12]}, this is {name} with {tower[:12]}: hand the items in again"
            )
        if segment.withdraws:
            return _Read(segment)
        return _Read(segment, _checked(folder, number, segment.data, segment.sha256))
    except CorruptRelease as error:
        return _Read(problem=str(error))


def _segment(folder: Store, number: int) -> Segment:
    path = numbered.name_of(number)
    try:
        return Segment(**json.loads(folder.read(path)))
    except StoreUnavailable:
        raise
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise CorruptRelease(f"{folder.uri}/{path} cannot be read ({error}): hand its items in again") from error


def _checked(folder: Store, number: int, path: str, sha256: str) -> pa.Table:
    try:
        content = folder.read(path)
    except FileNotFoundError as error:
        name = numbered.name_of(number)
        raise CorruptRelease(f"{folder.uri}/{path} of {name} is missing: hand the items in again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CorruptRelease(
            f"{folder.uri}/{path} has SHA-256 {found[:12]}, {numbered.name_of(number)} says {sha256[:12]}: the file was"
            f" altered or cut short; hand the items in again"
        )
    return pq.read_table(pa.BufferReader(content))


def _put(folder: Store, table: pa.Table) -> tuple[str, str]:
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, compression="zstd")
    content = stream.getvalue().to_pybytes()
    path = f"{uuid.uuid4().hex}.parquet"
    folder.write(path, content)
    return path, hashlib.sha256(content).hexdigest()


def _create(folder: Store, segment: Segment, *, now: bool) -> int:
    """Take the next number; one that comes ``now`` is no older than the newest, whatever this machine's clock says."""
    while True:
        number = max(numbered.numbers(folder.names("")), default=0) + 1
        if now:
            segment = replace(segment, at_s=max(time.time(), _newest_s(folder, number - 1)))
        if folder.create(numbered.name_of(number), json.dumps(asdict(segment)).encode()):
            return number


def _newest_s(folder: Store, number: int) -> float:
    try:
        return _segment(folder, number).at_s if number else 0.0
    except CorruptRelease:
        return 0.0
