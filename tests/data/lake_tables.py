"""Iceberg tables on disk or S3 without a catalogue service, for the tests of their reader."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa


def write_iceberg(uri: str, parts: list[pa.Table], *, partitioned_by: str | None = None) -> Any:
    """A new table at ``uri`` with one snapshot a part, partitioned by the values of a column if one is named.

    Returns the table, whose ``metadata_location`` a reader takes and to which more can be written.
    """
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.io import load_file_io
    from pyiceberg.io.pyarrow import _ConvertToIcebergWithoutIDs, visit_pyarrow
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
    from pyiceberg.schema import assign_fresh_schema_ids
    from pyiceberg.serializers import ToOutputFile
    from pyiceberg.table import CommitTableResponse, Table
    from pyiceberg.table.metadata import new_table_metadata
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
    from pyiceberg.table.update import update_table_metadata
    from pyiceberg.transforms import IdentityTransform

    class Files(NoopCatalog):  # type: ignore[misc, unused-ignore]  # Any where the extra is absent
        """Commits are metadata files beside the table, and nobody else commits."""

        def commit_table(self, table: Table, requirements: Any, updates: Any) -> CommitTableResponse:
            metadata = update_table_metadata(table.metadata, updates, enforce_validation=True)
            return CommitTableResponse.model_validate({"metadata": metadata, "metadata-location": save(metadata)})

    def save(metadata: Any) -> str:
        number = len(metadata.snapshots)
        location = f"{uri}/metadata/v{number}-{metadata.current_schema_id}.metadata.json"
        ToOutputFile.table_metadata(metadata, io.new_output(location), overwrite=True)
        return location

    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    io = load_file_io({"s3.endpoint": endpoint} if endpoint else {}, location=uri)
    schema = assign_fresh_schema_ids(visit_pyarrow(parts[0].schema, _ConvertToIcebergWithoutIDs()))
    spec = UNPARTITIONED_PARTITION_SPEC
    if partitioned_by is not None:
        source = schema.find_field(partitioned_by).field_id
        spec = PartitionSpec(PartitionField(source, 1000, IdentityTransform(), partitioned_by))
    metadata = new_table_metadata(schema, spec, UNSORTED_SORT_ORDER, uri)
    table = Table(("a", "table"), metadata, save(metadata), io, Files("files"))
    for part in parts:
        table.append(part)
    return table
