"""What a finished version says of itself; its presence is what "finished" means."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

import raycl
from raycl.errors import CorruptRelease, InputError
from raycl.storage.store import Store, is_partial

FILE = "manifest.json"
FORMAT = 1
"""Another number stands for a manifest that this code would misread; a field that is only added keeps the number."""
_THREADS = 8
_LIBRARIES = ("ray", "torch", "pyarrow", "numpy", "polars", "faiss-cpu", "faiss-gpu")


class Manifest(BaseModel):
    """Written last into a version's folder. Fields that this raycl does not know are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int
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
    sizes: dict[str, int]
    """Bytes of each of these files."""
    wall_s: float
    raycl: str
    libraries: dict[str, str]

    @classmethod
    def read(cls, store: Store) -> Self:
        """The manifest of the version whose root is ``store``.

        CorruptRelease where it is absent or no manifest, InputError where it has another format.
        """
        try:
            plain = json.loads(store.read(FILE))
            if isinstance(plain, dict) and plain.get("format", FORMAT) != FORMAT:
                raise InputError(
                    f"{store.uri}/{FILE} has format {plain['format']}, and raycl {RAYCL_VERSION} reads {FORMAT}: use"
                    f" raycl {plain.get('raycl', 'of the version that wrote it')}, or build the version again with"
                    f" --force"
                )
            return cls.model_validate(plain)
        except FileNotFoundError as error:
            raise CorruptRelease(f"{store.uri}/{FILE} is missing: no finished version is there") from error
        except ValueError as error:
            raise CorruptRelease(f"{store.uri}/{FILE} is not a manifest of this raycl: {error}") from error

    def verify(self, store: Store, paths: Sequence[str] | None = None, *, quietly: bool = False) -> None:
        """Raise CorruptRelease, naming the file, unless every file (or each of ``paths``) has its checksum.

        A path may be a folder: then ``require_complete`` holds for it too. Every byte is read, by several threads, or
        ``quietly`` by one: on S3 it then takes as many times as long, and the process can do other work meanwhile.
        """
        wanted = self.checksums if paths is None else [file for path in paths for file in self._below(store, path)]
        with ThreadPoolExecutor(1 if quietly else _THREADS) as pool:
            for path, found in zip(wanted, pool.map(lambda path: _hash(store, path), wanted), strict=True):
                if found != self.checksums[path]:
                    raise CorruptRelease(
                        f"{store.uri}/{path} has SHA-256 {found[:12]}, its manifest says {self.checksums[path][:12]}:"
                        f" the file was altered or cut short; build the version again with --force"
                    )

    def require_complete(self, store: Store, folder: str) -> None:
        """Raise CorruptRelease, naming the file, unless ``folder`` holds what is listed, in its sizes, and no more.

        It costs one listing and reads no file.
        """
        listed = [path for path in self.checksums if path.startswith(f"{folder}/")]
        if not listed:
            raise CorruptRelease(f"{store.uri}/{folder} is not listed in its manifest: the version was altered")
        found = {path: size for path, size in store.sizes(folder).items() if not is_partial(path)}
        for path in sorted(found.keys() - set(listed)):
            raise CorruptRelease(f"{store.uri}/{path} is not listed in its manifest: the version was altered")
        for path in listed:
            if path not in found:
                raise CorruptRelease(f"{store.uri}/{path} is missing: build the version again with --force")
            if found[path] != self.sizes[path]:
                raise CorruptRelease(
                    f"{store.uri}/{path} has {found[path]} bytes, its manifest says {self.sizes[path]}: the file was"
                    f" altered or cut short; build the version again with --force"
                )

    def _below(self, store: Store, path: str) -> list[str]:
        """The file ``path``, or the files of the complete folder ``path``."""
        if path in self.checksums:
            return [path]
        self.require_complete(store, path)
        return [file for file in self.checksums if file.startswith(f"{path}/")]

    def to_bytes(self) -> bytes:
        """Indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2).encode()


def checksums(store: Store, paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each of these files, read by several threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(paths, pool.map(store.sha256, paths), strict=True))


def _hash(store: Store, path: str) -> str:
    try:
        return store.sha256(path)
    except FileNotFoundError as error:
        raise CorruptRelease(f"{store.uri}/{path} is missing: build the version again with --force") from error


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
