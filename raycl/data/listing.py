"""Which files a source consists of, told from their names alone."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from raycl.data.times import TimeRange, date_span
from raycl.errors import InputError, StoreUnavailable
from raycl.storage.store import Store, absolute

_ENDINGS = (".parquet", ".parq", ".pq")
_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class ListedFile:
    """A file below the source's root that nobody has opened; ``partition`` holds its values as text, None for null."""

    path: str
    num_bytes: int
    modified_ns: int
    partition: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """The files of a source, sorted by path below ``root_uri``.

    ``partition_types`` has the type of each partition key where the table's own metadata says it; where it does not,
    the values tell (``partition_type``).
    """

    root_uri: str
    files: tuple[ListedFile, ...]
    partition_types: Mapping[str, pa.DataType] = field(default_factory=dict)


def list_parquet(name: str, uri: str) -> Listing:
    """The visible Parquet files of a file, folder or pattern; ``name`` is the source's field, for errors.

    Raises InputError where they cannot be listed, or there are none.
    """
    root_uri, pattern = _root_and_pattern(absolute(uri))
    try:
        found = _list(Store(root_uri), pattern)
    except StoreUnavailable:
        raise
    except OSError as error:
        raise InputError(f"{name}.uri={uri} cannot be listed: {str(error).partition(chr(10))[0]}") from error
    if not found:
        if "*" in uri:
            remedy = "check the path; '*' stays within a folder, '**' goes through folders"
            raise InputError(f"{name}.uri={uri} holds no Parquet files: {remedy}")
        raise InputError(f"{name}.uri={uri} does not exist, or holds no Parquet files: check the path")
    root, above = Store(root_uri).full(""), hive_partition(f"{root_uri}/")
    files = []
    for info in found:
        path = info.path[len(root) :].lstrip("/")
        files.append(ListedFile(path, info.size, info.mtime_ns or 0, above | hive_partition(path)))
    return Listing(root_uri, tuple(files))


def hive_partition(path: str) -> dict[str, str | None]:
    """The keys and values of a file's folders ``key=value``, decoded; of a key that comes twice, the deepest."""
    pairs = (folder.partition("=") for folder in path.split("/")[:-1])
    named = {unquote(key): unquote(value) for key, separator, value in pairs if separator and key}
    return {key: None if value == _NULL else value for key, value in named.items()}


def partition_type(values: Iterable[str | None]) -> pa.DataType:
    """int64 where every value is a whole number that it holds, without leading zeros; else large_string.

    Null where all are null.
    """
    known = [value for value in values if value is not None]
    if not known:
        return pa.null()
    return pa.int64() if all(map(_is_plain_int, known)) else pa.large_string()


def _is_plain_int(value: str) -> bool:
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
        return False
    return str(int(value)) == value and -(2**63) <= int(value) < 2**63


def within(
    name: str, files: Sequence[ListedFile], keys: Sequence[str], wanted: TimeRange | None
) -> tuple[ListedFile, ...]:
    """The files whose partition ``keys`` name a date that overlaps ``wanted``; one without a date may hold any time.

    Raises InputError for a file that has no such key, and for a value that is no date.
    """
    return tuple(file for file in files if not keys or _may_hold(name, file, keys, wanted))


def _may_hold(name: str, file: ListedFile, keys: Sequence[str], wanted: TimeRange | None) -> bool:
    parts = []
    for key in keys:
        if key not in file.partition:
            has = ", ".join(file.partition) or "none"
            raise InputError(
                f"{name}.date_partition={key} is no partition of file {file.path} (it has {has}): name a key of its"
                f" folders, such as dt in dt=2026-01-31"
            )
        parts.append(file.partition[key])
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return True
    try:
        span = date_span(known)
    except ValueError as error:
        raise InputError(
            f"{name}.date_partition={'/'.join(keys)} is '{'/'.join(known)}' for file {file.path}: name keys whose"
            f" values are dates such as 2026-01-31 or 20260131, or year, month, day and hour each in its own"
        ) from error
    return wanted is None or not wanted.misses(*span)


def _root_and_pattern(uri: str) -> tuple[str, str | None]:
    """A pattern's fixed folder and the rest; for a single file, its folder and its name."""
    head, _, tail = uri.rstrip("/").rpartition("/")
    if any(mark in uri for mark in "*?["):
        parts = uri.split("/")
        fixed = next(i for i, part in enumerate(parts) if any(mark in part for mark in "*?["))
        return "/".join(parts[:fixed]) or ".", "/".join(parts[fixed:])
    if tail.endswith(_ENDINGS):
        return head or ".", tail
    return uri, None


def _list(store: Store, pattern: str | None) -> list[pafs.FileInfo]:
    root = store.full("")
    if pattern is not None and not any(mark in pattern for mark in "*?["):
        info = store.patiently(pattern, lambda: store.filesystem.get_file_info(f"{root}/{pattern}"))
        if info.type == pafs.FileType.File:
            return [info]
        root, pattern = f"{root}/{pattern}", None  # a folder whose name ends in .parquet
    selector = pafs.FileSelector(root, allow_not_found=True, recursive=True)
    found = []
    for info in store.patiently("", lambda: store.filesystem.get_file_info(selector)):
        relative = info.path[len(root) :].lstrip("/")
        matches = _matches(relative, pattern) if pattern else relative.endswith(_ENDINGS)
        if info.type == pafs.FileType.File and matches and not _is_hidden(relative):
            found.append(info)
    return sorted(found, key=lambda info: info.path)


def _is_hidden(path: str) -> bool:
    """Whether a name on the way begins with ``.`` or ``_``; a folder ``_key=value`` is a partition like any other."""
    *folders, name = path.split("/")
    return name.startswith(("_", ".")) or any(
        folder.startswith(".") or (folder.startswith("_") and "=" not in folder) for folder in folders
    )


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern fits folder by folder: ``*`` within a name, ``**`` any number of folders."""
    head, _, rest = pattern.partition("/")
    name, _, below = path.partition("/")
    if head == "**":
        return not rest or _matches(path, rest) or ("/" in path and _matches(below, pattern))
    if not fnmatch.fnmatchcase(name, head):
        return False
    return _matches(below, rest) if below and rest else not below and not rest
