"""Cleaned events that stay in the workspace, so that a log that has grown is cleaned where it has grown.

``events/<cut>/<fragment>-<how>/`` holds the events of one fragment, the rows that were set aside, its items' counts,
and last of all ``record.json`` with the checksum of the rest. It is shared by all pairs versions of one cut, which is
what of the config shapes events; a folder is never written again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from raycl import schema
from raycl.config import Config, LogSource
from raycl.data.columns import whole
from raycl.data.hashing import hash_ids, mix
from raycl.data.id_map import IdMap
from raycl.data.sources import Fragment
from raycl.data.times import DAY_MS, TimeRange
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Record, fingerprint

EVENTS, COUNTS, BAD = "events.arrow", "counts.arrow", "bad.parquet"
LIST = "kept.json"
"""In a pairs version: the folders of events that it is made of."""

WINDOWS = ("since", "until", "version")
"""Settings of a log that move on from day to day."""

_RECORD, _USED = "record.json", "used"
_IDLE_MS = 14 * DAY_MS
"""Folders that no run has used for so long are swept."""


def cut(config: Config, *shapes: Any) -> str:
    """What of the config, and of these shapes, decides what an event is and where it lies in its file."""
    logs = [log.model_dump(mode="json", exclude=set(WINDOWS)) for log in config.logs]
    pairs = config.pairs
    types = config.event_weights, pairs.negative_events, pairs.negative_below
    by_column = pairs.split.kind == "column"
    return fingerprint(schema.PAIRS_FORMAT, logs, types, config.items is None, by_column, shapes)[:12]


@dataclass(frozen=True)
class How:
    """What else decided whether a row is an event: another run takes over what would be the same to it."""

    window: tuple[str, str]
    latest_ms: int
    catalogue: str
    """Fingerprint of the ids of the catalogue; empty without one."""

    @classmethod
    def of(cls, log: LogSource, latest_ms: int, catalogue: IdMap | None) -> How:
        """How a run reads a log."""
        ids = "" if catalogue is None else _fingerprint_of(catalogue)
        return cls((str(log.since), str(log.until)), latest_ms, ids)


@dataclass(frozen=True)
class Kept:
    """The folders of one cut."""

    uri: str
    """Of the cut's folder."""
    names: tuple[str, ...]
    """Folders that were there when the run began."""

    @classmethod
    def under(cls, workspace: Store, name: str) -> Kept:
        """The folders of the cut of this name."""
        store = workspace.under(f"events/{name}")
        return cls(store.uri, tuple(store.names("")))

    def folder(self, name: str) -> Store:
        """One folder of events."""
        return Store(self.uri).under(name)

    def has(self, name: str) -> bool:
        """Whether the folder is complete."""
        return self.folder(name).exists(_RECORD)

    def use(self, name: str, now_ms: int) -> None:
        """Say that a run that began at ``now_ms`` is made of the folder, which keeps it from being swept."""
        self.folder(name).write(_USED, str(now_ms).encode())

    def find(
        self, fragment: Fragment, log: LogSource, how: How, catalogue: IdMap | None
    ) -> tuple[str, dict[str, Any]] | None:
        """Name and record of a folder whose events are those that this run would make of the fragment."""
        key = _key(fragment)
        for name in self.names:
            if name.startswith(key):
                record = self._record(name)
                if record and _is_same(record, self.folder(name), log, how, catalogue):
                    return name, record["record"]
        return None

    def finish(self, name: str, how: How, record: Record, beyond_ms: int | None) -> None:
        """Make a folder complete once its files are there; ``beyond_ms`` is the first time that was not believed."""
        folder = self.folder(name)
        sums = {path: folder.sha256(path) for path in (EVENTS, COUNTS, BAD)}
        plain = {"record": record, "how": vars(how), "beyond_ms": beyond_ms, "checksums": sums}
        folder.write(_RECORD, json.dumps(plain).encode())

    def name_of(self, fragment: Fragment, how: How) -> str:
        """The folder for what this run makes of the fragment."""
        return f"{_key(fragment)}-{fingerprint(vars(how))[:12]}"

    def _record(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self.folder(name).read(_RECORD)))
        except (FileNotFoundError, ValueError):
            return None


def sweep(workspace: Store, now_ms: int) -> None:
    """Remove the folders, of every cut, that no run has used for two weeks."""
    for cut_name in workspace.names("events"):
        for name in workspace.names(f"events/{cut_name}"):
            folder = workspace.under(f"events/{cut_name}/{name}")
            try:
                used_ms = int(folder.read(_USED))
            except (FileNotFoundError, ValueError):
                continue  # another run is just making it
            if used_ms < now_ms - _IDLE_MS:
                if folder.exists(_RECORD):
                    folder.delete(_RECORD)  # first: half a folder is none
                folder.delete_folder("")


def _key(fragment: Fragment) -> str:
    return fingerprint(fragment.log, fragment.root_uri, fragment.stamp, fragment.groups)[:16]


def _is_same(record: Mapping[str, Any], folder: Store, log: LogSource, how: How, catalogue: IdMap | None) -> bool:
    """Whether cleaning the fragment now would make what the folder holds, and the folder holds it still."""
    then, told = record["how"], record["record"]
    if record["beyond_ms"] is not None and record["beyond_ms"] < how.latest_ms:
        return False  # a time that was too late to be believed may be believed now
    if tuple(then["window"]) != how.window and not _inside(told, TimeRange.of(log)):
        return False
    try:
        if any(folder.sha256(path) != expected for path, expected in record["checksums"].items()):
            return False
    except FileNotFoundError:
        return False
    return then["catalogue"] == how.catalogue or _same_items(folder, log, catalogue)


def _inside(record: Record, within: TimeRange | None) -> bool:
    """Whether no row was left out for its time, and none would be."""
    if record["dropped"].get("outside_range"):
        return False
    days, _ = record["report"]["days"]
    if within is None or not days:
        return True
    first_ms, end_ms = int(min(days)) * DAY_MS, (int(max(days)) + 1) * DAY_MS
    return within.since_ms <= first_ms and end_ms <= within.until_ms


def _same_items(folder: Store, log: LogSource, catalogue: IdMap | None) -> bool:
    """Whether the catalogue still has every item of the events, and none of those that it lacked."""
    if catalogue is None:
        return True
    known = tables.read_all_buckets(folder, COUNTS)["item"]
    bad = tables.read(folder, BAD)
    unknown = bad.filter(pc.equal(bad["reason"], "unknown_item"))[log.columns.item]
    return bool((catalogue.rows(known) >= 0).all()) and not bool(
        (catalogue.rows(whole(unknown).cast(catalogue.ids.type)) >= 0).any()
    )


@functools.lru_cache(maxsize=2)
def _fingerprint_of(catalogue: IdMap) -> str:
    return fingerprint(len(catalogue), [str(part) for part in _digests(catalogue.ids)])


def _digests(ids: Any) -> list[int]:
    hashes = hash_ids(ids)
    return [int(hashes.sum()), int(mix(hashes).sum())]
