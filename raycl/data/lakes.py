"""Tables of a lake format: which Parquet files their current state consists of, told by the table's own metadata.

The packages that read it are optional and imported where they are used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import unquote

import pyarrow as pa

from raycl.config import TableSource
from raycl.data.listing import ListedFile, Listing, list_parquet
from raycl.errors import ConfigError, InputError
from raycl.storage.store import absolute

_KNOWN_DELTA = {
    "columnMapping",  # where it is in use, the table's configuration says so
    "deletionVectors",  # where a file has one, it is found
    "timestampNtz",
    "v2Checkpoint",
    "vacuumProtocolCheck",
}
_ENDPOINT = "AWS_ENDPOINT_URL"  # of S3, where Arrow and s3fs look for it too
_PLAIN_TRANSFORMS = ("identity", "year", "month", "day", "hour")


def list_files(name: str, table: TableSource, columns: Sequence[str]) -> Listing:
    """The files of a source of any format; ``name`` is its field, for errors, and ``columns`` will be read.

    Raises InputError where there are none, they cannot be listed, or the table needs more than its files as they are;
    ConfigError where the package for the format is not installed.
    """
    if table.format == "parquet":
        return list_parquet(name, table.uri)
    listed = _delta(name, table) if table.format == "delta" else _iceberg(name, table, columns)
    if not listed.files:
        raise InputError(f"{name}.uri={table.uri}: its {table.format} table has no files; check the path and version")
    return listed


def _delta(name: str, table: TableSource) -> Listing:
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise _absent(name, table) from error
    plain_http = os.environ.get(_ENDPOINT, "").startswith("http://")
    options = {"allow_http": "true"} if plain_http else None
    root = absolute(table.uri).rstrip("/")
    try:
        found = DeltaTable(root, version=table.version, storage_options=options)
        actions = pa.table(found.get_add_actions())
        schema = pa.schema(found.schema())
        features = found.protocol().reader_features or []
        has_deletions = "deletionVectors" in features and found.deletion_vectors().read_all().num_rows > 0
    except (DeltaError, OSError, ValueError) as error:
        raise _unreadable(name, table, error) from error
    if found.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise _refused(name, table, "maps its columns to other names", "rewrite it without column mapping")
    if has_deletions:
        raise _refused(name, table, "has deletion vectors", "run REORG TABLE ... APPLY (PURGE) on it")
    if unknown := sorted(set(features) - _KNOWN_DELTA):
        raise _refused(name, table, f"needs {', '.join(unknown)} of its readers", "rewrite it without")
    files = []
    for action in actions.to_pylist():
        path = unquote(action["path"])
        if "://" in path or path.startswith("/"):
            raise _refused(name, table, f"has file {path} outside of its folder", "copy the table as a whole")
        partition = {
            key: None if value is None else str(value) for key, value in (action.get("partition") or {}).items()
        }
        files.append(ListedFile(path, action["size_bytes"], action["modification_time"] * 1_000_000, partition))
    types = {key: schema.field(key).type for key in found.metadata().partition_columns}
    return Listing(root, tuple(sorted(files, key=lambda file: file.path)), types)


def _iceberg(name: str, table: TableSource, columns: Sequence[str]) -> Listing:
    try:
        from pyiceberg.exceptions import ValidationError
        from pyiceberg.io.pyarrow import schema_to_pyarrow
        from pyiceberg.table import StaticTable
    except ImportError as error:
        raise _absent(name, table) from error
    endpoint = os.environ.get(_ENDPOINT)
    try:
        found = StaticTable.from_metadata(
            absolute(table.uri).rstrip("/"), {"s3.endpoint": endpoint} if endpoint else {}
        )
        tasks = list(found.scan(snapshot_id=table.version).plan_files())
    except (OSError, ValueError, ValidationError) as error:
        raise _unreadable(name, table, error) from error
    metadata = found.metadata
    names = [{field.field_id: field.name for field in schema.fields} for schema in metadata.schemas]
    for column in columns:
        ids = {number for named in names for number, other in named.items() if other == column}
        if len(ids) > 1 or any(named.get(number, column) != column for named in names for number in ids):
            raise _refused(name, table, f"gave column '{column}' another name or meaning in time", "rewrite its files")
    root = _plain_uri(metadata.location)
    schema, specs = found.schema(), metadata.specs()
    files, types = [], {}
    for task in tasks:
        path = _plain_uri(task.file.file_path)
        if task.delete_files:
            raise _refused(name, table, f"has delete files for {path}", "rewrite its data files, which applies them")
        if task.file.file_format.value != "PARQUET":
            raise _refused(name, table, f"has {path} as {task.file.file_format.value}", "rewrite it as Parquet")
        if not path.startswith(f"{root}/"):
            raise _refused(name, table, f"has file {path} outside of its folder {root}", "copy the table as a whole")
        partition = {}
        for position, field in enumerate(specs[task.file.spec_id].fields):
            value = task.file.partition[position]
            if str(field.transform) not in _PLAIN_TRANSFORMS:
                continue
            kind = schema.find_type(field.source_id)
            partition[field.name] = None if value is None else field.transform.to_human_string(kind, value)
            if str(field.transform) == "identity":
                types[field.name] = schema_to_pyarrow(kind)
        files.append(ListedFile(path[len(root) + 1 :], task.file.file_size_in_bytes, 0, partition))
    return Listing(root, tuple(sorted(files, key=lambda file: file.path)), types)


def _plain_uri(uri: str) -> str:
    """A URI of Hadoop's or of Java's spelling as the store takes it."""
    for scheme in ("s3a://", "s3n://"):
        if uri.startswith(scheme):
            return "s3://" + uri.removeprefix(scheme).rstrip("/")
    return ("/" + uri.removeprefix("file:").lstrip("/") if uri.startswith("file:") else uri).rstrip("/")


def _absent(name: str, table: TableSource) -> ConfigError:
    return ConfigError(
        f"{name}.format={table.format} needs a package that is not installed: pip install 'raycl[{table.format}]'"
    )


def _unreadable(name: str, table: TableSource, error: Exception) -> InputError:
    version = "" if table.version is None else f" at {name}.version={table.version}"
    reason = str(error).partition("\n")[0]
    return InputError(
        f"{name}.uri={table.uri}{version} is no readable {table.format} table ({reason}): check the path and version"
    )


def _refused(name: str, table: TableSource, fault: str, remedy: str) -> InputError:
    return InputError(
        f"{name}.uri={table.uri} {fault}, which raycl's {table.format} reader does not know: {remedy}, or write it"
        f" out as Parquet"
    )
