"""Versioned hand-offs: a stage opens a folder, fills it, and commits it by writing the manifest last."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from raycl.errors import InputError
from raycl.storage.manifest import FILE, RAYCL_VERSION, Manifest, library_versions
from raycl.storage.store import Store

WORK = "work"
_NAME = re.compile(r"\d{8}T\d{9}-[0-9a-f]{12}")


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


@dataclass
class Draft:
    """A version being made; no reader sees it until ``commit``.

    What a stage leaves under ``work/`` lets a killed run go on where it stopped, and is removed by the commit.
    """

    stage: str
    store: Store
    name: str
    fingerprint: str
    resumed: bool
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
        self.store.write(f"{WORK}/done/{task}.json", json.dumps(record).encode())

    def commit(
        self,
        *,
        inputs: Mapping[str, str],
        config: Mapping[str, Any],
        counts: Mapping[str, int],
        dropped: Mapping[str, int] | None = None,
        facts: Mapping[str, Any] | None = None,
        columns: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Version:
        """Take the checksum of every file, write the manifest, and so make the version visible."""
        self.store.delete_folder(WORK)
        self.store.delete_partial()
        manifest = Manifest(
            stage=self.stage,
            version=self.name,
            fingerprint=self.fingerprint,
            inputs=dict(inputs),
            counts=dict(counts),
            dropped=dict(dropped or {}),
            facts=dict(facts or {}),
            columns={kind: dict(types) for kind, types in (columns or {}).items()},
            config=dict(config),
            checksums={path: self.store.sha256(path) for path in self.store.files()},
            wall_s=round(time.monotonic() - self.started, 3),
            raycl=RAYCL_VERSION,
            libraries=library_versions(),
        )
        self.store.write(FILE, manifest.to_bytes())
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

    def latest(self, stage: str, remedy: str) -> Version:
        """The newest finished version; InputError ending in ``remedy`` where there is none."""
        names = self.finished(stage)
        if not names:
            raise InputError(f"workspace={self.store.uri} has no finished {stage}: {remedy}")
        return self.open(stage, names[-1])

    def find(self, stage: str, digest: str) -> Version | None:
        """The newest finished version with this fingerprint."""
        for name in reversed(self.finished(stage)):
            if name.endswith(digest[:12]):
                version = self.open(stage, name)
                if version.manifest.fingerprint == digest:
                    return version
        return None

    def draft(self, stage: str, digest: str, *, fresh: bool = False) -> Draft:
        """Open a folder for a version with this fingerprint: the unfinished one of a killed run, or a new one.

        ``fresh`` leaves unfinished ones alone. The folder is not visible to readers before its commit.
        """
        known = self._names(stage)
        unfinished = [
            name for name in known if name.endswith(digest[:12]) and not self.store.exists(f"{stage}/{name}/{FILE}")
        ]
        resumed = bool(unfinished) and not fresh
        name = unfinished[-1] if resumed else _version_name(digest)
        while not resumed and name in known:
            time.sleep(0.001)
            name = _version_name(digest)
        return Draft(stage, self.store.under(f"{stage}/{name}"), name, digest, resumed)

    def _names(self, stage: str) -> list[str]:
        return [name for name in self.store.names(stage) if _NAME.fullmatch(name)]


def _version_name(digest: str) -> str:
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}-{digest[:12]}"
