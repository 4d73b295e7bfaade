"""Versioned hand-offs: a stage opens a folder, fills it, and commits it by writing the manifest last."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from raycl.errors import CorruptRelease, InputError, RayclError
from raycl.storage import lease
from raycl.storage.lease import Lease
from raycl.storage.manifest import FILE, FORMAT, RAYCL_VERSION, Manifest, checksums, library_versions
from raycl.storage.store import Store

log = logging.getLogger(__name__)

WORK = "work"

Record = Mapping[str, Any]
"""What a finished task says of itself."""

_LEASES = f"{WORK}/lease"
_CUT = f"{WORK}/cut"
_REMOVED = "removed"
"""Stands in the folder of a version whose removal was begun, until all else is gone."""
_NAME = re.compile(r"\d{8}T\d{9}-[0-9a-f]{12}")


def begun_at(name: str) -> datetime | None:
    """When a version was begun, by its name; None for a name that does not say."""
    try:
        return datetime.strptime(name[:18] + "000", "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
    except ValueError:
        return None


def fingerprint(*parts: Any) -> str:
    """SHA-256 of the parts as canonical JSON."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Version:
    """One finished hand-off."""

    store: Store
    manifest: Manifest

    @property
    def name(self) -> str:
        """The folder's name: UTC time to the millisecond, then the start of the fingerprint."""
        return self.manifest.version

    def verified(self, *paths: str) -> Version:
        """This version, once these of its files and folders have their checksums.

        CorruptRelease names the file that has not. Every byte is read: for small files, and by whoever reads them next.
        """
        self.manifest.verify(self.store, paths)
        return self

    def complete(self, *folders: str) -> Version:
        """This version, once these folders hold the files of the manifest in their sizes, and no others.

        CorruptRelease names the file. It costs a listing a folder: for files that are too many to be read here.
        """
        for folder in folders:
            self.manifest.require_complete(self.store, folder)
        return self


@dataclass
class Draft:
    """A version being made; no reader sees it until ``commit``.

    What a stage leaves under ``work/`` lets a killed run go on where it stopped, and is removed after the commit. The
    ``lease`` keeps other runs out meanwhile; it is theirs once this run has given no heartbeat for too long, and then
    ``finish_task`` and ``commit`` raise RayclError.
    """

    stage: str
    store: Store
    name: str
    fingerprint: str
    lease: Lease
    started: float = field(default_factory=time.monotonic)

    def task_done(self, task: str) -> dict[str, Any] | None:
        """What ``finish_task`` recorded of this task, in this run or in one that was killed."""
        try:
            record = json.loads(self.store.read(f"{WORK}/done/{task}.json"))
        except FileNotFoundError:
            return None
        return dict(record)

    def finish_task(self, task: str, record: Mapping[str, Any]) -> None:
        """Record that the task's files are complete; written after them."""
        self.lease.require()
        self.store.write(f"{WORK}/done/{task}.json", json.dumps(record).encode())

    def settle(self, task: str, record: Record) -> None:
        """``finish_task`` by another process than the task's, once the ``files`` of its record are on the disk.

        So a task need not wait for the disk, and the next one begins. A record that ``task_done`` found is settled.
        """
        if not record.get("settled"):
            self.store.sync(record["files"])
            self.finish_task(task, {**record, "settled": True})

    def commit(
        self,
        *,
        inputs: Mapping[str, str],
        config: Mapping[str, Any],
        counts: Mapping[str, int],
        dropped: Mapping[str, int] | None = None,
        facts: Mapping[str, Any] | None = None,
        columns: Mapping[str, Mapping[str, str]] | None = None,
        written: Mapping[str, str] | None = None,
    ) -> Version:
        """Take the checksum of every file, and make the version visible by writing the manifest; then remove ``work/``.

        ``written`` has the SHA-256 of files as their writers sent them: CorruptRelease names one that is another now.
        Killed before the manifest is there, the run goes on with all its work; killed after it, the version is finished
        and ``find`` removes what is left. RayclError where another run has the lease, or was first to commit.
        """
        self.lease.require()
        self.store.delete_partial(keep=WORK)
        sizes = {path: size for path, size in self.store.sizes().items() if not path.startswith(f"{WORK}/")}
        found = checksums(self.store, list(sizes))
        for path, digest in (written or {}).items():
            if found.get(path) != digest:
                raise CorruptRelease(
                    f"{self.store.uri}/{path} has SHA-256 {found.get(path, 'missing')[:12]}, its writer sent"
                    f" {digest[:12]}: the file was altered or cut short; build the version again with --force"
                )
        manifest = Manifest(
            format=FORMAT,
            stage=self.stage,
            version=self.name,
            fingerprint=self.fingerprint,
            inputs=dict(inputs),
            counts=dict(counts),
            dropped=dict(dropped or {}),
            facts=dict(facts or {}),
            columns={kind: dict(types) for kind, types in (columns or {}).items()},
            config=dict(config),
            checksums=found,
            sizes=sizes,
            wall_s=round(time.monotonic() - self.started, 3),
            raycl=RAYCL_VERSION,
            libraries=library_versions(),
        )
        self.lease.require()
        self.lease.release()
        if not self.store.create(FILE, manifest.to_bytes()):
            raise RayclError(f"{self.store.uri} was finished by another run: run again to use its version")
        _sweep(self.store)
        return Version(self.store, manifest)


@dataclass(frozen=True)
class Workspace:
    """Everything a team's raycl has made, under one root."""

    store: Store

    def finished(self, stage: str) -> list[str]:
        """Names of the stage's complete versions, oldest first."""
        return [name for name in self._names(stage) if self.store.exists(f"{stage}/{name}/{FILE}")]

    def open(self, stage: str, name: str) -> Version:
        """A finished version; InputError where it is absent or was never completed."""
        folder = self.store.under(f"{stage}/{name}")
        if not folder.exists(FILE):
            raise InputError(f"{folder.uri} has no {FILE}: no such finished version of {stage}")
        return Version(folder, Manifest.read(folder))

    def readable(self, stage: str, ending: str = "") -> Iterator[Version]:
        """Finished versions whose name has this ending, newest first.

        One whose manifest this raycl cannot read is passed over with a warning, so that it does not stand in the way.
        """
        for name in reversed(self.finished(stage)):
            if name.endswith(ending):
                try:
                    yield self.open(stage, name)
                except RayclError as error:
                    log.warning("passed over: %s", error)

    def find(self, stage: str, digest: str) -> Version | None:
        """The newest finished version with this fingerprint, with nothing left of its making."""
        for version in self.readable(stage, digest[:12]):
            if version.manifest.fingerprint == digest:
                _sweep(version.store)
                return version
        return None

    def unfinished(self, stage: str, digest: str) -> list[str]:
        """Names of versions with this fingerprint that were begun and not finished, oldest first."""
        names = [name for name in self._names(stage) if name.endswith(digest[:12])]
        return [
            name for name in names if not any(self.store.exists(f"{stage}/{name}/{end}") for end in (FILE, _REMOVED))
        ]

    def require_idle(self, stage: str) -> None:
        """Raise InputError, naming the owner, where a run that has not ended is making a version of this stage."""
        for name in self.unfinished(stage, ""):
            lease.require_free(self.store.under(f"{stage}/{name}"), _LEASES, "; nothing is removed meanwhile")

    def remove(self, stage: str, name: str) -> None:
        """Remove a version, its manifest first. What a killed removal leaves is gone on with by another one alone."""
        folder = self.store.under(f"{stage}/{name}")
        folder.write(_REMOVED, b"")
        if folder.exists(FILE):
            folder.delete(FILE)
        tops = {path.partition("/")[0]: "/" in path for path in folder.files()}
        for top, is_folder in tops.items():
            if top != _REMOVED:
                folder.delete_folder(top) if is_folder else folder.delete(top)
        folder.delete_folder("")

    def half_removed(self, stage: str) -> list[str]:
        """Names of versions whose removal was begun and not ended; one that has its manifest is whole."""
        there = [name for name in self._names(stage) if self.store.exists(f"{stage}/{name}/{_REMOVED}")]
        return [name for name in there if not self.store.exists(f"{stage}/{name}/{FILE}")]

    def draft(self, stage: str, digest: str, *, cut: str = "", fresh: bool = False) -> Draft:
        """Open a folder for a version with this fingerprint: the unfinished one of a killed run, or a new one.

        ``cut`` names how the work is cut into tasks: an unfinished version of another cut is left alone, and ``fresh``
        leaves all alone. The folder is not visible to readers before its commit. InputError where a run that has not
        ended is making this version.
        """
        known = self._names(stage)
        unfinished = [] if fresh else [name for name in reversed(known) if name.endswith(digest[:12])]
        for name in unfinished:
            store = self.store.under(f"{stage}/{name}")
            if not store.exists(FILE) and not store.exists(_REMOVED) and _fits(store, cut):
                return Draft(stage, store, name, digest, _take_over(store, cut))
        while True:
            name = _version_name(digest)
            store = self.store.under(f"{stage}/{name}")
            if name not in known and (held := lease.first(store, _LEASES)):
                _record(store, cut)
                return Draft(stage, store, name, digest, held)
            time.sleep(0.001)

    def _names(self, stage: str) -> list[str]:
        return [name for name in self.store.names(stage) if _NAME.fullmatch(name)]


def _take_over(store: Store, cut: str) -> Lease:
    """The lease of an unfinished version that nobody is making any more."""
    held = lease.take(store, _LEASES)
    if store.exists(FILE):  # its run committed after we looked, and the lease is of no use
        held.release()
        _sweep(store)
        raise InputError(f"{store.uri} was finished by another run just now: run again to use it")
    _record(store, cut)
    return held


def _fits(store: Store, cut: str) -> bool:
    """Whether work of this cut can go on in this folder; any can where none is recorded."""
    try:
        return cut in ("", store.read(_CUT).decode())
    except FileNotFoundError:
        return True


def _record(store: Store, cut: str) -> None:
    if cut:
        store.write(_CUT, cut.encode())


def _sweep(store: Store) -> None:
    """Remove ``work/`` of a finished version; somebody else may be at it, and a reader may not be allowed to."""
    try:
        store.delete_folder(WORK)
    except OSError as error:
        log.info("%s/%s is left for a later run to remove: %s", store.uri, WORK, error)


def _version_name(digest: str) -> str:
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}-{digest[:12]}"
