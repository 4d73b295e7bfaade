"""Parquet files, read: what a footer says of its row groups, and the columns of some of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raycl.data.column_types import plain
from raycl.data.times import TimeRange, to_ms
from raycl.errors import InputError, StoreUnavailable
from raycl.storage.store import Store

_DAY_S = 86_400
_UNITS = {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}


@dataclass(frozen=True)
class Selection:
    """The row groups that may hold times of a range: ``time_column`` by its name, numbers in it being of ``unit``."""

    time_column: str
    unit: str
    wanted: TimeRange


@dataclass(frozen=True)
class Footer:
    """The columns of a file, the rows of each of its row groups, and the numbers of those that are chosen."""

    columns: pa.Schema
    group_rows: tuple[int, ...]
    chosen: tuple[int, ...]


def read_footer(store: Store, field: str, path: str, selection: Selection | None = None) -> Footer:
    """Open a file's footer; without a selection every row group is chosen.

    A row group is left out where its statistics show that no time lies in the range, whatever rows without a time it
    has. Raises InputError for what is no Parquet file.
    """
    try:
        metadata = store.patiently(path, lambda: pq.read_metadata(store.full(path), filesystem=store.filesystem))
        columns = metadata.schema.to_arrow_schema()
        rows = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        missing = _missing(metadata, selection)
    except StoreUnavailable:
        raise
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{field}.uri: file {store.uri}/{path} is not readable Parquet ({_first_line(error)}):"
            f" replace it or leave it out"
        ) from error
    return Footer(columns, rows, tuple(group for group in range(len(rows)) if group not in missing))


def read_groups(
    store: Store,
    field: str,
    path: str,
    columns: Sequence[str],
    groups: Sequence[int],
    given: Mapping[str, pa.Scalar],
    words: Sequence[str] = (),
) -> pa.Table:
    """These columns of some row groups, in this order and with their text as large_string.

    Columns that are ``given`` are not in the file, and hold that value in every row. Text of columns in ``words``,
    which have few values, may come as a dictionary. Raises InputError where the file is damaged.
    """
    stored = [name for name in columns if name not in given]

    def once() -> tuple[pa.Table, int]:
        with (
            store.filesystem.open_input_file(store.full(path)) as stream,
            pq.ParquetFile(stream, read_dictionary=[name for name in words if name in stored]) as file,
        ):
            read = file.read_row_groups(list(groups), columns=stored)
            return read, sum(file.metadata.row_group(group).num_rows for group in groups)

    try:
        read, num_rows = store.patiently(path, once)
        table = plain(read, words)
    except StoreUnavailable:
        raise
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{field}.uri: file {store.uri}/{path} is damaged ({_first_line(error)}): replace it or leave it out"
        ) from error
    parts = {name: table[name] if name in stored else pa.repeat(given[name], num_rows) for name in columns}
    return pa.table(parts)


def _missing(metadata: Any, selection: Selection | None) -> set[int]:
    """The row groups in which no time lies in the range."""
    names = [metadata.schema.column(position).path for position in range(metadata.num_columns)]
    if selection is None or selection.time_column not in names:
        return set()
    position = names.index(selection.time_column)
    column = metadata.schema.column(position)
    missing = set()
    for group in range(metadata.num_row_groups):
        bounds = _bounds_ms(metadata.row_group(group).column(position).statistics, column, selection.unit)
        if bounds is not None and selection.wanted.misses(*bounds):
            missing.add(group)
    return missing


def _bounds_ms(statistics: Any, column: Any, unit: str) -> tuple[int, int] | None:
    """First and last time of a row group in milliseconds; None where its statistics do not tell."""
    if statistics is None or not statistics.has_min_max:
        return None
    kind = json.loads(column.logical_type.to_json())
    match kind["Type"]:
        case "Timestamp":
            bounds, unit = (statistics.min_raw, statistics.max_raw), _UNITS[kind["timeUnit"]]
        case "Date":
            bounds, unit = (statistics.min_raw * _DAY_S, statistics.max_raw * _DAY_S), "s"
        case "None" | "Int" if isinstance(statistics.min, int | float):
            bounds = (statistics.min, statistics.max)
        case _:
            return None
    most = 2**52 if unit == "s" else 2**62
    if not all(-most < bound < most for bound in bounds):
        return None  # such as infinity, or what becomes 0 on its way to milliseconds
    first, last = to_ms(np.array(bounds), unit)
    return int(first), int(last)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
