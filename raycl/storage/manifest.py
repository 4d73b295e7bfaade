"""What a finished version says of itself; its presence is what "finished" means."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

import raycl
from raycl.errors import CorruptRelease
from raycl.storage.store import Store

FILE = "manifest.json"
_LIBRARIES = ("ray", "torch", "pyarrow", "numpy", "polars", "faiss-cpu", "faiss-gpu")


class Manifest(BaseModel):
    """Written last into a version's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    version: str
    fingerprint: str
    """SHA-256 of the input and of the config that made this version."""
    inputs: dict[str, str]
    """Where the input came from: a version's name for each earlier stage, a URI for each source."""
    counts: dict[str, int]
    dropped: dict[str, int]
    """Rows that did not get through, by reason."""
    facts: dict[str, Any]
    """What the next stages need to know, such as metrics, cut times and search parameters."""
    columns: dict[str, dict[str, str]]
    """Name and type of each column of each kind of file."""
    config: dict[str, Any]
    checksums: dict[str, str]
    """SHA-256 of every other file in the folder, by relative path."""
    wall_s: float
    raycl: str
    libraries: dict[str, str]

    @classmethod
    def read(cls, store: Store) -> Self:
        """The manifest of the version whose root is ``store``; CorruptRelease where it is absent or no manifest."""
        try:
            return cls.model_validate_json(store.read(FILE))
        except FileNotFoundError as error:
            raise CorruptRelease(f"{store.uri}/{FILE} is missing: no finished version is there") from error
        except ValueError as error:
            raise CorruptRelease(f"{store.uri}/{FILE} is not a manifest of this raycl: {error}") from error

    def verify(self, store: Store, paths: list[str] | None = None) -> None:
        """Raise CorruptRelease, naming the file, unless every file (or each of ``paths``) has its checksum."""
        for path in self.checksums if paths is None else paths:
            expected = self.checksums.get(path)
            if expected is None:
                raise CorruptRelease(f"{store.uri}/{path} is not listed in its manifest: the version was altered")
            try:
                found = store.sha256(path)
            except FileNotFoundError as error:
                raise CorruptRelease(f"{store.uri}/{path} is missing: build the version again with --force") from error
            if found != expected:
                raise CorruptRelease(
                    f"{store.uri}/{path} has SHA-256 {found[:12]}, its manifest says {expected[:12]}: the file was"
                    f" altered or cut short; build the version again with --force"
                )

    def to_bytes(self) -> bytes:
        """Indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2).encode()


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape an output, where installed."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


RAYCL_VERSION = raycl.__version__
