"""Paths under one root, on local disk or S3, with the few operations that raycl's guarantees rest on."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.fs as pafs

from raycl.errors import InputError, StoreUnavailable
from raycl.storage import retries

T = TypeVar("T")

_PARTIAL = ".partial"
_WRITER = "raycl-writer"
"""Metadata of an object on S3 that tells whose request made it."""


@dataclass(frozen=True)
class Store:
    """A root folder or ``s3://bucket/prefix``; every ``path`` argument is relative to it, with forward slashes.

    It holds no connection of its own, so it travels to other processes as its URI.
    """

    uri: str

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The Arrow file system, made once a process."""
        return _connect(self.uri)[0]

    def full(self, path: str) -> str:
        """``path`` as the Arrow file system names it."""
        root = _connect(self.uri)[1]
        return f"{root}/{path}" if path else root

    def under(self, path: str) -> Store:
        """The store whose root is ``path`` of this one."""
        return Store(f"{self.uri.rstrip('/')}/{path}")

    def patiently(self, path: str, operation: Callable[[], T]) -> T:
        """What ``operation`` on ``path`` returns; it only reads, or may as well be done twice.

        On S3 it is done again while that is overloaded or out of reach, at the most for ``retries.PATIENCE_S``; then
        StoreUnavailable. Every method but those of ``open_output`` works so by itself.
        """
        return operation() if self.is_local else retries.patiently(f"{self.uri}/{path}".rstrip("/"), operation)

    def read(self, path: str) -> bytes:
        """The whole file; FileNotFoundError where there is none."""
        return self.read_with(path, lambda file: bytes(file.read()))

    def read_with(self, path: str, reader: Callable[[Any], T]) -> T:
        """What ``reader`` makes of an open Arrow file, which it reads at once or in pieces; it may be called again.

        FileNotFoundError where there is none.
        """

        def once() -> T:
            # Not a stream, which Arrow reads in pieces of 256 KiB, each a request on S3, and joins while no other
            # thread of the process can run.
            with self.filesystem.open_input_file(self.full(path)) as file:
                return reader(file)

        return self.patiently(path, once)

    def write(self, path: str, content: bytes) -> None:
        """Write the whole file so that readers see nothing or all of it; an older one is replaced."""
        if self.is_local:
            with self.open_output(path) as stream:
                stream.write(content)
        else:
            self.patiently(path, lambda: _put_on_s3(self.full(path), content))

    def open_output(self, path: str, *, durable: bool = True) -> Any:
        """A stream to a new file, as a context: the file appears under ``path`` when the context ends without error.

        One that is not ``durable`` is only sure to outlast a loss of power once it was given to ``sync``.
        """
        if self.is_local:
            return _LocalOutput(Path(self.full(path)), durable=durable)
        return _s3_output(self.full(path))

    def sync(self, paths: Iterable[str]) -> None:
        """Wait until these files are on the disk, as those on S3 are from the start."""
        for path in paths if self.is_local else ():
            file = os.open(self.full(path), os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder ``path``."""
        info = self.patiently(path, lambda: self.filesystem.get_file_info(self.full(path)))
        return bool(info.type != pafs.FileType.NotFound)

    def names(self, path: str) -> list[str]:
        """Names directly under the folder ``path``, sorted; empty where there is no such folder."""
        selector = pafs.FileSelector(self.full(path), allow_not_found=True)
        found = self.patiently(path, lambda: self.filesystem.get_file_info(selector))
        return sorted(info.base_name for info in found)

    def modified_s(self, path: str) -> dict[str, float]:
        """Seconds since 1970, by the store's own clock, at which each file directly under the folder was written."""
        selector = pafs.FileSelector(self.full(path), allow_not_found=True)
        found = self.patiently(path, lambda: self.filesystem.get_file_info(selector))
        return {info.base_name: info.mtime_ns / 1e9 for info in found if info.type == pafs.FileType.File}

    def files(self, path: str = "") -> list[str]:
        """Every file below ``path``, sorted, as paths relative to this store's root."""
        return list(self.sizes(path))

    def sizes(self, path: str = "") -> dict[str, int]:
        """Bytes of every file below ``path``, in the order of ``files``; no file is opened."""
        selector = pafs.FileSelector(self.full(path), allow_not_found=True, recursive=True)
        root = self.full("")
        found = self.patiently(path, lambda: self.filesystem.get_file_info(selector))
        files = (info for info in found if info.type == pafs.FileType.File)
        return dict(sorted((info.path[len(root) :].lstrip("/"), int(info.size)) for info in files))

    def delete(self, path: str) -> None:
        """Remove one file; FileNotFoundError where there is none."""
        tries = 0

        def once() -> None:
            nonlocal tries
            tries += 1
            try:
                self.filesystem.delete_file(self.full(path))
            except FileNotFoundError:
                if tries == 1:  # else it went with a try whose answer was lost
                    raise

        self.patiently(path, once)

    def delete_folder(self, path: str) -> None:
        """Remove the folder and what is in it; nothing happens where there is none."""

        def once() -> None:
            if self.exists(path):
                self.filesystem.delete_dir(self.full(path))

        self.patiently(path, once)

    def delete_partial(self, keep: str) -> None:
        """Remove what killed processes left of files that they had not finished (local disk only has such).

        The folder ``keep`` is left alone.
        """
        for path in self.files():
            if is_partial(path) and not path.startswith(f"{keep}/"):
                self.delete(path)

    def sha256(self, path: str) -> str:
        """Hexadecimal SHA-256 of the file's bytes."""

        def digested(file: Any) -> str:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 22):
                digest.update(chunk)
            return digest.hexdigest()

        return self.read_with(path, digested)

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return not self.uri.startswith("s3://")

    def create(self, path: str, content: bytes) -> bool:
        """Write a new file if and only if there is none of that name; False where somebody was first.

        Arrow has no conditional write, so S3 goes through s3fs with ``If-None-Match: *``.
        """
        if self.is_local:
            return _create_on_disk(Path(self.full(path)), content)
        writer = uuid.uuid4().hex  # of all tries, so that one whose answer was lost is known again
        return self.patiently(path, lambda: _create_on_s3(self.full(path), content, writer))

    def require_writable(self, field: str = "workspace") -> None:
        """Raise InputError, naming ``field``, unless a file can be written under the root and removed again."""
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self.write(probe, b"")
            self.delete(probe)
        except StoreUnavailable:
            raise
        except OSError as error:
            raise InputError(
                f"{field}={self.uri} cannot be written ({_first_line(error)}): choose another, or grant write access"
            ) from error


class _LocalOutput:
    """A file written beside its place and moved there at the end, a durable one once its bytes are on the disk."""

    def __init__(self, target: Path, *, durable: bool) -> None:
        self._target, self._durable = target, durable
        self._partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_PARTIAL}")

    def __enter__(self) -> Any:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._partial.open("wb")
        return self._stream

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._stream.close()
            self._partial.unlink(missing_ok=True)
            return
        self._stream.flush()
        if self._durable:
            os.fsync(self._stream.fileno())
        self._stream.close()
        self._partial.replace(self._target)


def _create_on_disk(target: Path, content: bytes) -> bool:
    """Exclusive and whole: a hard link to a finished file either takes the name or finds it taken."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_PARTIAL}")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(partial, target)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def _s3_output(key: str) -> Iterator[Any]:
    """A stream that is completed at the end and aborted on an error; Arrow's own would publish half a file.

    What it sends cannot be had again from the caller, so it is s3fs that sends a part again, for about half a minute.
    """
    try:
        with _s3() as s3, _stream(s3, key) as stream:
            yield stream
    except OSError as error:
        if retries.passes(error):
            raise retries.unavailable(f"s3://{key}", error, "to be written, in many tries") from error
        raise


@contextlib.contextmanager
def _stream(s3: Any, key: str) -> Iterator[Any]:
    writer = uuid.uuid4().hex
    stream = s3.open(key, "wb", Metadata={_WRITER: writer})
    try:
        yield stream
        _complete(s3, stream, key, writer)
    except BaseException:
        stream.closed = True  # or the end of its life would complete it
        with contextlib.suppress(Exception):  # parts that stay cost space and are never seen; the first error counts
            stream.discard()
        raise


def _complete(s3: Any, stream: Any, key: str, writer: str) -> None:
    """Close the stream; a completion that fails since an earlier one, whose answer was lost, made the file, is none."""
    try:
        stream.close()
    except FileNotFoundError:
        if _writer_on_s3(s3, key) != writer:
            raise


@contextlib.contextmanager
def _s3() -> Iterator[Any]:
    """S3 through s3fs; what fails before the server answers is an OSError, as it is through Arrow."""
    import s3fs
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    try:
        yield s3fs.S3FileSystem(use_listings_cache=False)
    except BotoCoreError as error:
        raise OSError(str(error)) from error


def _put_on_s3(key: str, content: bytes) -> None:
    with _s3() as s3:
        s3.pipe_file(key, content)


def _create_on_s3(key: str, content: bytes, writer: str) -> bool:
    with _s3() as s3:
        try:
            s3.pipe_file(key, content, mode="create", Metadata={_WRITER: writer})
        except OSError as error:
            # One server's refusal arrives as FileExistsError, another's as OSError: the cause carries the S3 code.
            response = getattr(error.__cause__, "response", None) or {}
            refused = response.get("Error", {}).get("Code") in ("PreconditionFailed", "412")
            if not (refused or isinstance(error, FileExistsError)):
                raise
            return _writer_on_s3(s3, key) == writer  # our own, where the answer to an earlier try was lost
    return True


def _writer_on_s3(s3: Any, key: str) -> str:
    """Who made the object, or nothing where that is not said or it is gone again."""
    bucket, _, name = key.partition("/")
    try:
        found = s3.call_s3("head_object", Bucket=bucket, Key=name)
    except FileNotFoundError:
        return ""
    return str(found["Metadata"].get(_WRITER, ""))


def _connect(uri: str) -> tuple[pafs.FileSystem, str]:
    """The Arrow file system of ``uri`` and the root within it."""
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        return _open_bucket(bucket), f"{bucket}/{prefix}".rstrip("/")
    if "://" in uri and not uri.startswith("file://"):
        raise InputError(f"URI {uri}: the scheme is unknown; use a local path or s3://bucket/prefix")
    return pafs.LocalFileSystem(), str(Path(uri.removeprefix("file://")).absolute())


@functools.lru_cache(maxsize=16)
def _open_bucket(bucket: str) -> pafs.FileSystem:
    """One connection a bucket and process."""
    # Stores other than AWS refuse the trailing checksums that newer SDKs send unasked.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    try:
        return pafs.FileSystem.from_uri(f"s3://{bucket}")[0]
    except (OSError, ValueError) as error:
        raise InputError(f"URI s3://{bucket} cannot be opened: {_first_line(error)}") from error


def is_partial(path: str) -> bool:
    """Whether a file of this name is one that its writer has not finished."""
    name = path.rpartition("/")[2]
    return name.startswith(".") and name.endswith(_PARTIAL)


def absolute(uri: str) -> str:
    """The same place for every process: a local path in full, any other URI as it is."""
    return uri if "://" in uri else str(Path(uri).absolute())


def _first_line(error: BaseException) -> str:
    """What an error says; where a server gave it no words, what its cause says."""
    told = str(error).partition("\n")[0]
    if told in ("", "None"):
        return _first_line(error.__cause__) if error.__cause__ else type(error).__name__
    return told
