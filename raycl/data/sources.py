"""What a Parquet source consists of, checked from the file footers before any cluster starts."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raycl import schema
from raycl.config import Config, Feature, ItemTable, LogSource, TableSource, UserTable
from raycl.data import drift, footers, lakes, listing
from raycl.data.column_types import CONTEXT, EVENT, FEATURES, ID, SHOWN, TIME, TITLE, WEIGHT
from raycl.data.drift import Column, Given
from raycl.data.footers import Selection
from raycl.data.times import TimeRange
from raycl.errors import InputError
from raycl.storage.store import Store
from raycl.storage.versions import fingerprint

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceFile:
    """One Parquet file: its path within the source, size, modification time, and rows in each row group.

    Only the row groups ``chosen`` are read. The file lacks the columns ``given``, and holds that value in every row.
    """

    path: str
    num_bytes: int
    modified_ns: int
    group_rows: tuple[int, ...]
    chosen: tuple[int, ...]
    given: Given

    @property
    def num_rows(self) -> int:
        """Rows in the chosen row groups."""
        return sum(self.group_rows[group] for group in self.chosen)

    def identity(self) -> list[Any]:
        """What changes when the file or the choice of its rows changes."""
        return [*self._itself(), self.chosen]

    def stamp(self) -> str:
        """What changes when the file changes, in few letters."""
        return fingerprint(self._itself())

    def _itself(self) -> list[Any]:
        given = {name: [str(value.type), str(value)] for name, value in self.given.items()}
        return [self.path, self.num_bytes, self.modified_ns, self.group_rows, given]


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
        """Rows in the chosen row groups of all files."""
        return sum(file.num_rows for file in self.files)

    def identity(self) -> list[Any]:
        """What changes when the source changes: paths, sizes, times."""
        return [self.root_uri, [file.identity() for file in self.files]]

    def read(self, columns: Sequence[str]) -> pa.Table:
        """These columns of every file; for tables that fit in memory, such as a catalogue."""
        store = Store(self.root_uri)
        parts = [
            footers.read_groups(store, self.field, file.path, columns, file.chosen, file.given) for file in self.files
        ]
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
    given: Given
    stamp: str
    """Changes when the file changes."""

    def read(self, columns: Sequence[str], words: Sequence[str] = ()) -> pa.Table:
        """These columns of the fragment's rows, in file order; InputError where the file is damaged or another one.

        Text of columns in ``words``, which have few values, may come as a dictionary.
        """
        field = f"logs.{self.log}"
        table = footers.read_groups(Store(self.root_uri), field, self.path, columns, self.groups, self.given, words)
        if table.num_rows != self.num_rows:
            raise InputError(
                f"{field}.uri: file {self.root_uri}/{self.path} was written anew while it was read: run again, and"
                f" write new files beside the old ones"
            )
        return table


@dataclass(frozen=True)
class Inputs:
    """Every source of a run, opened and checked."""

    logs: tuple[Source, ...]
    items: Source | None
    users: Source | None
    _id_types: tuple[pa.DataType, pa.DataType]
    context: Mapping[str, pa.DataType] = dataclasses.field(default_factory=dict)
    """By column that events carry along: its type in every hand-off."""

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


def open_inputs(config: Config, encoded_uri: str | None = None) -> Inputs:
    """Open what the config names; the item table with the columns of ``items.encode`` lies at ``encoded_uri``.

    Without that, such a table is opened as it is, which checks it: nothing reads its vectors.

    Raises InputError for anything missing, unreadable or empty, and for a column of any file that is absent or of a
    type that cannot be used; ConfigError for a format whose package is not installed.
    """
    logs = tuple(_open_log(position, log) for position, log in enumerate(config.logs))
    items = open_items(config.items, encoded_uri) if config.items else None
    users = _open("users", config.users, _user_columns(config.users)) if config.users else None
    users_named = [(f"logs.{i}.columns.user", log, config.logs[i].columns.user) for i, log in enumerate(logs)]
    items_named = [(f"logs.{i}.columns.item", log, config.logs[i].columns.item) for i, log in enumerate(logs)]
    if users and config.users:
        users_named.append(("users.id_column", users, config.users.id_column))
    if items and config.items:
        items_named.append(("items.id_column", items, config.items.id_column))
    id_types = _one_id_type(users_named), _one_id_type(items_named)
    context = {name: _one_context_type(name, logs) for name in config.logs[0].columns.context}
    return Inputs(logs, items, users, id_types, context)


def open_words(items: ItemTable) -> Source:
    """Open the item table with what ``items.encode`` reads of it, and without what that makes."""
    made = [encoding.column for encoding in items.encode]
    columns = [column for column in _item_columns(items) if column.name not in made]
    columns += [
        Column(f"items.encode.{position}.of", name, FEATURES["multi"])
        for position, encoding in enumerate(items.encode)
        for name in encoding.of
    ]
    return _open("items", items, columns)


def open_columns(field: str, table: TableSource, columns: Sequence[Column]) -> Source:
    """Open a table for these columns alone; InputError as ``open_inputs`` raises it."""
    return _open(field, table, columns)


def open_items(items: ItemTable, encoded_uri: str | None = None) -> Source:
    """Open a catalogue for all that is read of it; InputError as ``open_inputs`` raises it.

    ``encoded_uri`` is where the vectors of its words are; without it, what is to be encoded is opened for its words.
    """
    if items.encode and encoded_uri is None:
        return open_words(items)
    if encoded_uri is not None:
        items = items.model_copy(update={"uri": encoded_uri, "format": "parquet", "version": None, "defaults": {}})
    return _open("items", items, _item_columns(items))


def fragments(logs: Iterable[Source], max_rows: int) -> list[Fragment]:
    """Cut the logs into runs of row groups of at most ``max_rows`` rows; a larger row group stands alone.

    A run ends before a row group that is not read, so that its rows are consecutive.
    """
    return [
        Fragment(position, log.root_uri, file.path, run, first_row, num_rows, file.given, file.stamp())
        for position, log in enumerate(logs)
        for file in log.files
        for run, first_row, num_rows in _runs(file, max_rows)
    ]


def _runs(file: SourceFile, max_rows: int) -> list[tuple[tuple[int, ...], int, int]]:
    """Row groups, first row within the file and number of rows of each run; one without rows is left out."""
    found: list[tuple[tuple[int, ...], int, int]] = []
    chosen = set(file.chosen)
    groups: list[int] = []
    first_row = rows = 0
    for group, group_rows in enumerate((*file.group_rows, 0)):
        if groups and (group not in chosen or rows + group_rows > max_rows):
            if rows:
                found.append((tuple(groups), first_row, rows))
            first_row, rows, groups = first_row + rows, 0, []
        if group in chosen:
            groups.append(group)
            rows += group_rows
        else:
            first_row += group_rows
    return found


def log_columns(log: LogSource) -> list[str]:
    """The columns of a log that are read at all."""
    return log.columns.names


_LOG_USES = {"user": ID, "item": ID, "time": TIME, "event": EVENT, "weight": WEIGHT, "split": EVENT}


def _open_log(position: int, log: LogSource) -> Source:
    field = f"logs.{position}"
    named = ((role, getattr(log.columns, role), use) for role, use in _LOG_USES.items())
    columns = [Column(f"{field}.columns.{role}", name, use) for role, name, use in named if name]
    columns += [Column(f"{field}.columns.context", name, CONTEXT) for name in log.columns.context]
    within = TimeRange.of(log)
    selection = None if within is None else Selection(str(log.columns.time), log.time_unit, within)
    source = _open(field, log, columns, log.date_partition, selection)
    if source.num_rows == 0 and within is not None:
        bounds = [f"{field}.{name}={value.isoformat()}" for name in ("since", "until") if (value := getattr(log, name))]
        raise InputError(
            f"{' and '.join(bounds)}: no file of {log.uri} holds such times; move the range, or check {field}.time_unit"
            f" and {field}.date_partition"
        )
    if source.num_rows == 0:
        raise InputError(f"{field}.uri={log.uri} holds no rows in {len(source.files)} Parquet files: check the path")
    return source


def _item_columns(table: ItemTable) -> list[Column]:
    title = [Column("items.title_column", table.title_column, TITLE)] if table.title_column else []
    asked = [Column(f"items.where.{name}", name, CONTEXT) for name in table.where]
    shown = [Column(f"items.display.{position}", name, SHOWN) for position, name in enumerate(table.display)]
    return [Column("items.id_column", table.id_column, ID), *title, *_features("items", table.features), *asked, *shown]


def _user_columns(table: UserTable) -> list[Column]:
    return [Column("users.id_column", table.id_column, ID), *_features("users", table.features)]


def _features(table: str, features: Sequence[Feature]) -> list[Column]:
    return [
        Column(f"{table}.features.{position}.column", feature.column, FEATURES[feature.kind])
        for position, feature in enumerate(features)
    ]


def _open(
    field: str,
    table: TableSource,
    wanted: Sequence[Column],
    date_partition: Sequence[str] = (),
    selection: Selection | None = None,
) -> Source:
    """List the files, leave out those of other dates, open the others, and leave out row groups of other times."""
    listed = lakes.list_files(field, table, [column.name for column in wanted])
    near = listing.within(field, listed.files, date_partition, selection.wanted if selection else None)
    store = Store(listed.root_uri)
    with ThreadPoolExecutor(16) as pool:
        opened = list(pool.map(lambda file: footers.read_footer(store, field, file.path, selection), near))
    held = [(file, footer) for file, footer in zip(near, opened, strict=True) if footer.chosen or selection is None]
    if selection is not None:
        groups = sum(len(footer.group_rows) for footer in opened), sum(len(footer.chosen) for footer in opened)
        _log.info(
            f"{field}: opened {len(opened)} of {len(listed.files)} files, and {groups[1]} of their {groups[0]} row"
            f" groups may hold times of the range"
        )
    if not held:
        return Source(field, listed.root_uri, (), {})
    found = [(file, footer.columns) for file, footer in held]
    types, given = drift.reconcile(field, wanted, found, listed.partition_types, table.defaults)
    files = [
        SourceFile(file.path, file.num_bytes, file.modified_ns, footer.group_rows, footer.chosen, values)
        for (file, footer), values in zip(held, given, strict=True)
    ]
    return Source(field, listed.root_uri, tuple(files), types)


def _one_id_type(named: Sequence[tuple[str, Source, str]]) -> pa.DataType:
    """Ids compare across tables only when all are integers or all are strings; a column of nulls says neither."""
    return _one_type(named, schema.id_type, "do not compare")


def _one_context_type(name: str, logs: Sequence[Source]) -> pa.DataType:
    named = [(f"logs.{position}.columns.context", log, name) for position, log in enumerate(logs)]
    return _one_type(named, schema.context_type, "do not make one column")


def _one_type(
    named: Sequence[tuple[str, Source, str]], kept_in: Callable[[pa.DataType], pa.DataType], fault: str
) -> pa.DataType:
    """The type that these columns are all kept in; large_string where all are null."""
    kinds: dict[pa.DataType, str] = {}
    for field, source, column in named:
        found = source.types[column]
        if not pa.types.is_null(found):
            kinds.setdefault(kept_in(found), f"{field}={column} ({found})")
    if len(kinds) > 1:
        raise InputError(f"{' and '.join(kinds.values())} {fault}: give both the same type")
    return next(iter(kinds), pa.large_string())
