"""What a Parquet source consists of, checked from the file footers before any cluster starts."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raycl import schema
from raycl.config import Config, Feature, ItemTable, LogSource, UserTable
from raycl.data.column_types import EVENT, FEATURES, ID, SHOWN, TIME, TITLE, WEIGHT, Use, plain_text
from raycl.errors import InputError
from raycl.storage.store import Store, absolute


@dataclass(frozen=True)
class SourceFile:
    """One Parquet file: its path within the source, size, modification time, and rows in each row group."""

    path: str
    num_bytes: int
    modified_ns: int
    group_rows: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """A table in Parquet: files below ``root_uri`` whose used columns have types that go together."""

    field: str
    root_uri: str
    files: tuple[SourceFile, ...]
    types: Mapping[str, pa.DataType]
    """Of each used column, the type in the first file where it is not null."""

    @property
    def num_rows(self) -> int:
        """Rows in all files."""
        return sum(sum(file.group_rows) for file in self.files)

    def identity(self) -> list[Any]:
        """What changes when the source changes: paths, sizes, times."""
        return [self.root_uri, [asdict(file) for file in self.files]]

    def read(self, columns: Sequence[str]) -> pa.Table:
        """These columns of every file; for tables that fit in memory, such as a catalogue."""
        store = Store(self.root_uri)
        parts = [_read_file(store, self.field, file.path, columns) for file in self.files]
        try:
            return pa.concat_tables(parts, promote_options="permissive")
        except pa.ArrowException as error:
            raise InputError(f"{self.field}.uri: its files do not make one table ({error}): convert them") from error


@dataclass(frozen=True)
class Fragment:
    """Consecutive row groups of one log file: the work of one cleaning task."""

    log: int
    root_uri: str
    path: str
    groups: tuple[int, ...]
    first_row: int
    num_rows: int

    def read(self, columns: Sequence[str]) -> pa.Table:
        """These columns of the fragment's rows, in file order; InputError where the file is damaged."""
        return _read_file(Store(self.root_uri), f"logs.{self.log}.uri", self.path, columns, self.groups)


@dataclass(frozen=True)
class Inputs:
    """Every source of a run, opened and checked."""

    logs: tuple[Source, ...]
    items: Source | None
    users: Source | None

    @property
    def user_type(self) -> pa.DataType:
        """Type of user ids in every hand-off."""
        return self._id_types[0]

    @property
    def item_type(self) -> pa.DataType:
        """Type of item ids in every hand-off."""
        return self._id_types[1]

    @property
    def tables(self) -> tuple[Source, ...]:
        """All sources that there are."""
        return tuple(table for table in (*self.logs, self.items, self.users) if table is not None)

    _id_types: tuple[pa.DataType, pa.DataType]


@dataclass(frozen=True)
class _Column:
    """A column that is used: the field of the config that names it, and what it is read as."""

    field: str
    name: str
    use: Use


def open_inputs(config: Config) -> Inputs:
    """Open what the config names.

    Raises InputError for anything missing, unreadable or empty, and for a column of any file that is absent or of a
    type that cannot be used.
    """
    logs = tuple(_open_log(position, log) for position, log in enumerate(config.logs))
    items = _open("items", config.items.uri, _item_columns(config.items)) if config.items else None
    users = _open("users", config.users.uri, _user_columns(config.users)) if config.users else None
    users_named = [(f"logs.{i}.columns.user", log, config.logs[i].columns.user) for i, log in enumerate(logs)]
    items_named = [(f"logs.{i}.columns.item", log, config.logs[i].columns.item) for i, log in enumerate(logs)]
    if users and config.users:
        users_named.append(("users.id_column", users, config.users.id_column))
    if items and config.items:
        items_named.append(("items.id_column", items, config.items.id_column))
    return Inputs(logs, items, users, (_one_id_type(users_named), _one_id_type(items_named)))


def fragments(logs: Iterable[Source], max_rows: int) -> list[Fragment]:
    """Cut the logs into runs of row groups of at most ``max_rows`` rows; a larger row group stands alone."""
    found = []
    for position, log in enumerate(logs):
        for file in log.files:
            groups: list[int] = []
            first_row = rows = 0
            for group, group_rows in enumerate(file.group_rows):
                if groups and rows + group_rows > max_rows:
                    found.append(Fragment(position, log.root_uri, file.path, tuple(groups), first_row, rows))
                    first_row, rows, groups = first_row + rows, 0, []
                groups.append(group)
                rows += group_rows
            if rows:
                found.append(Fragment(position, log.root_uri, file.path, tuple(groups), first_row, rows))
    return found


def log_columns(log: LogSource) -> list[str]:
    """The columns of a log that are read at all."""
    columns = log.columns
    wanted = (columns.user, columns.item, columns.time, columns.event, columns.weight, columns.split)
    return list(dict.fromkeys(column for column in wanted if column))


_LOG_USES = {"user": ID, "item": ID, "time": TIME, "event": EVENT, "weight": WEIGHT, "split": EVENT}


def _open_log(position: int, log: LogSource) -> Source:
    field = f"logs.{position}"
    named = ((role, getattr(log.columns, role), use) for role, use in _LOG_USES.items())
    source = _open(field, log.uri, [_Column(f"{field}.columns.{role}", name, use) for role, name, use in named if name])
    if source.num_rows == 0:
        raise InputError(f"{field}.uri={log.uri} holds no rows in {len(source.files)} Parquet files: check the path")
    return source


def _item_columns(table: ItemTable) -> list[_Column]:
    title = [_Column("items.title_column", table.title_column, TITLE)] if table.title_column else []
    shown = [_Column(f"items.display.{position}", name, SHOWN) for position, name in enumerate(table.display)]
    return [_Column("items.id_column", table.id_column, ID), *title, *_features("items", table.features), *shown]


def _user_columns(table: UserTable) -> list[_Column]:
    return [_Column("users.id_column", table.id_column, ID), *_features("users", table.features)]


def _features(table: str, features: Sequence[Feature]) -> list[_Column]:
    return [
        _Column(f"{table}.features.{position}.column", feature.column, FEATURES[feature.kind])
        for position, feature in enumerate(features)
    ]


def _open(field: str, uri: str, wanted: Sequence[_Column]) -> Source:
    root_uri, pattern = _root_and_pattern(absolute(uri))
    try:
        files = _list_parquet(Store(root_uri), pattern)
    except OSError as error:
        raise InputError(f"{field}.uri={uri} cannot be listed: {str(error).partition(chr(10))[0]}") from error
    if not files:
        folders = "; '*' stays within a folder, '**' goes through folders" if "*" in uri else ""
        raise InputError(f"{field}.uri={uri} holds no Parquet files: check the path{folders}")
    with ThreadPoolExecutor(16) as pool:
        opened = list(pool.map(lambda info: _open_file(Store(root_uri), field, info), files))
    for file, found in opened:
        for column in wanted:
            if column.name not in found.names:
                raise InputError(
                    f"{field}.uri: file {file.path} has no column '{column.name}' (it has {', '.join(found.names)}):"
                    f" name the right column in {field}"
                )
    types = {column.name: _type_of(column, opened) for column in wanted}
    return Source(field, root_uri, tuple(file for file, _ in opened), types)


def _type_of(column: _Column, opened: Sequence[tuple[SourceFile, pa.Schema]]) -> pa.DataType:
    """The column's type, the first that is not null; InputError, naming the file, for one that cannot be used."""
    first, first_type = opened[0][0], pa.null()
    for file, found in opened:
        kind = found.field(column.name).type
        if not column.use.accepts(kind):
            raise InputError(f"{column.field}={column.name} is of type {kind} in file {file.path}: {column.use.remedy}")
        if pa.types.is_null(first_type):
            first, first_type = file, kind
        elif not pa.types.is_null(kind) and not column.use.mixes(first_type, kind):
            raise InputError(
                f"{column.field}={column.name} is of type {first_type} in file {first.path} and {kind} in file"
                f" {file.path}: give it one type in all files"
            )
    return first_type


def _root_and_pattern(uri: str) -> tuple[str, str | None]:
    """A pattern's fixed folder and the rest; for a single file, its folder and its name."""
    head, _, tail = uri.rstrip("/").rpartition("/")
    if any(mark in uri for mark in "*?["):
        parts = uri.split("/")
        fixed = next(i for i, part in enumerate(parts) if any(mark in part for mark in "*?["))
        return "/".join(parts[:fixed]) or ".", "/".join(parts[fixed:])
    if tail.endswith((".parquet", ".parq", ".pq")):
        return head or ".", tail
    return uri, None


def _list_parquet(store: Store, pattern: str | None) -> list[pafs.FileInfo]:
    root = store.full("")
    if pattern is not None and not any(mark in pattern for mark in "*?["):
        info = store.filesystem.get_file_info(f"{root}/{pattern}")
        if info.type == pafs.FileType.File:
            return [info]
        root, pattern = f"{root}/{pattern}", None  # a folder whose name ends in .parquet
    selector = pafs.FileSelector(root, allow_not_found=True, recursive=True)
    found = []
    for info in store.filesystem.get_file_info(selector):
        relative = info.path[len(root) :].lstrip("/")
        hidden = any(part.startswith(("_", ".")) for part in relative.split("/"))
        matches = _matches(relative, pattern) if pattern else relative.endswith((".parquet", ".parq", ".pq"))
        if info.type == pafs.FileType.File and matches and not hidden:
            found.append(info)
    return sorted(found, key=lambda info: info.path)


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern fits folder by folder: ``*`` within a name, ``**`` any number of folders."""
    head, _, rest = pattern.partition("/")
    name, _, below = path.partition("/")
    if head == "**":
        return not rest or _matches(path, rest) or ("/" in path and _matches(below, pattern))
    if not fnmatch.fnmatchcase(name, head):
        return False
    return _matches(below, rest) if below and rest else not below and not rest


def _open_file(store: Store, field: str, info: pafs.FileInfo) -> tuple[SourceFile, pa.Schema]:
    relative = info.path[len(store.full("")) :].lstrip("/")
    try:
        metadata = pq.read_metadata(info.path, filesystem=store.filesystem)
        arrow_schema = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{field}.uri: file {store.uri}/{relative} is not readable Parquet ({str(error).partition(chr(10))[0]}):"
            f" replace it or leave it out"
        ) from error
    rows = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    return SourceFile(relative, info.size, info.mtime_ns or 0, rows), arrow_schema


def _read_file(
    store: Store, field: str, path: str, columns: Sequence[str], groups: Sequence[int] | None = None
) -> pa.Table:
    try:
        with store.filesystem.open_input_file(store.full(path)) as stream, pq.ParquetFile(stream) as file:
            wanted = range(file.num_row_groups) if groups is None else groups
            return plain_text(file.read_row_groups(list(wanted), columns=list(columns)))
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{field}: file {store.uri}/{path} is damaged ({str(error).partition(chr(10))[0]}):"
            f" replace it or leave it out"
        ) from error


def _one_id_type(named: Sequence[tuple[str, Source, str]]) -> pa.DataType:
    """Ids compare across tables only when all are integers or all are strings; a column of nulls says neither."""
    kinds: dict[pa.DataType, str] = {}
    for field, source, column in named:
        found = source.types[column]
        if not pa.types.is_null(found):
            kinds.setdefault(schema.id_type(found), f"{field}={column} ({found})")
    if len(kinds) > 1:
        raise InputError(f"{' and '.join(kinds.values())} do not compare: give both the same type")
    return next(iter(kinds), pa.large_string())
