"""Files of one source that differ in their columns: which differences make no difference, and what fills a gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from raycl.config_values import to_moment
from raycl.data.column_types import Use, plain_type
from raycl.data.listing import ListedFile, partition_type
from raycl.errors import InputError

Given = Mapping[str, pa.Scalar]
"""By column that a file lacks: its value in every row of the file."""


@dataclass(frozen=True)
class Column:
    """A column that is used: the field of the config that names it, and what it is read as."""

    field: str
    name: str
    use: Use


def reconcile(
    field: str,
    wanted: Sequence[Column],
    files: Sequence[tuple[ListedFile, pa.Schema]],
    partition_types: Mapping[str, pa.DataType],
    defaults: Mapping[str, Any],
) -> tuple[dict[str, pa.DataType], list[Given]]:
    """One type for each wanted column, the first that is not null, and what each file is given.

    A column is the file's own, else its partition's, else the declared default. Raises InputError, naming file, column
    and remedy, where it is none of these, of a type that its use does not accept, or of types that do not go together.
    """
    types: dict[str, pa.DataType] = {}
    given: list[dict[str, pa.Scalar]] = [{} for _ in files]
    for column in wanted:
        name = column.name
        kinds = _kinds(field, name, files, partition_types, name in defaults)
        types[name], where = _one_type(column, [file.path for file, _ in files], kinds)
        if None in kinds:
            default = _default(field, column, defaults[name], types[name], where)
            types[name] = default.type
        for mine, (file, found), kind in zip(given, files, kinds, strict=True):
            if kind is None:
                mine[name] = default
            elif name not in found.names:
                text = file.partition[name]
                mine[name] = pa.scalar(None, kind) if text is None else pa.scalar(text).cast(kind)
    return types, list(given)


def _kinds(
    field: str,
    name: str,
    files: Sequence[tuple[ListedFile, pa.Schema]],
    partition_types: Mapping[str, pa.DataType],
    has_default: bool,
) -> list[pa.DataType | None]:
    """What the column is in each file, in it or as its partition; None where the default stands for it."""
    named = [file.partition[name] for file, found in files if name in file.partition and name not in found.names]
    partition = partition_types.get(name, partition_type(named))
    kinds = []
    for file, found in files:
        if found.names.count(name) > 1:
            raise InputError(f"{field}.uri: file {file.path} has column '{name}' twice: rename one of them")
        if name in found.names:
            kinds.append(found.field(name).type)
        elif name in file.partition:
            kinds.append(partition)
        elif has_default:
            kinds.append(None)
        else:
            elsewhere = any(name in other.names for _, other in files)
            remedy = f", or declare what it is there in {field}.defaults.{name}" if elsewhere else ""
            has = ", ".join([*found.names, *(key for key in file.partition if key not in found.names)])
            raise InputError(
                f"{field}.uri: file {file.path} has no column '{name}' (it has {has}): name the right column in"
                f" {field}{remedy}"
            )
    return kinds


def _one_type(column: Column, paths: Sequence[str], kinds: Sequence[pa.DataType | None]) -> tuple[pa.DataType, str]:
    """The first type that is not null, and the file that it is of."""
    first, first_type = paths[0], pa.null()
    for path, kind in zip(paths, kinds, strict=True):
        if kind is None:
            continue
        if not column.use.accepts(kind):
            raise InputError(f"{column.field}={column.name} is of type {kind} in file {path}: {column.use.remedy}")
        if pa.types.is_null(first_type):
            first, first_type = path, kind
        elif not pa.types.is_null(kind) and not column.use.mixes(first_type, kind):
            raise InputError(
                f"{column.field}={column.name} is of type {first_type} in file {first} and {kind} in file {path}:"
                f" give it one type in all files"
            )
    return first_type, first


def _default(field: str, column: Column, value: Any, kind: pa.DataType, path: str) -> pa.Scalar:
    """The declared value in the column's type, or in its own where no file has one."""
    setting = f"{field}.defaults.{column.name}={value}"
    if pa.types.is_null(kind):
        found = pa.scalar(value)
        if not column.use.accepts(found.type):
            raise InputError(f"{setting} is of type {found.type}: {column.use.remedy}")
        return found.cast(plain_type(found.type))
    try:
        return _fitted(value, plain_type(kind))
    except (ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
        raise InputError(
            f"{setting} is no {kind}, as the column is in file {path}: write a value of that type"
        ) from error


def _fitted(value: Any, kind: pa.DataType) -> pa.Scalar:
    """``value`` in this type without loss; ValueError, TypeError or one of Arrow's errors where it does not fit."""
    if value is None:
        return pa.scalar(None, kind)
    if isinstance(value, bool) is not pa.types.is_boolean(kind):
        raise TypeError("a truth value is no number")
    if pa.types.is_timestamp(kind):
        moment = to_moment(value)
        return pa.scalar(moment if kind.tz else moment.replace(tzinfo=None), kind)
    if pa.types.is_date(kind):
        return pa.scalar(to_moment(value).date(), kind)
    if pa.types.is_decimal(kind):
        return pa.scalar(Decimal(str(value)), kind)
    if pa.types.is_integer(kind) and isinstance(value, float):
        if not value.is_integer():
            raise ValueError("not a whole number")
        value = int(value)
    return pa.scalar(value, kind)
