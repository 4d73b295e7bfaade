"""Tables on storage: Parquet for hand-offs, and Arrow files cut into buckets for what one stage passes to itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from raycl.storage.narrow import narrowed, widened
from raycl.storage.store import Store

ROW_GROUP = 65_536


def write(store: Store, path: str, table: pa.Table, *, durable: bool = True) -> None:
    """Write a Parquet file; whole numbers as differences, which is faster and smaller than a dictionary of them."""
    leaves = [leaf for field in table.schema for leaf in _leaves(field.name, field.type)]
    numbers = {leaf: "DELTA_BINARY_PACKED" for leaf, kind in leaves if pa.types.is_integer(kind)}
    others = [leaf for leaf, _ in leaves if leaf not in numbers]
    with store.open_output(path, durable=durable) as stream:
        pq.write_table(
            table,
            stream,
            compression="zstd",
            row_group_size=ROW_GROUP,
            use_dictionary=others or False,
            column_encoding=numbers or None,
        )


def _leaves(path: str, kind: pa.DataType) -> list[tuple[str, pa.DataType]]:
    """The columns that Parquet makes of a nested one, by their names there."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    return [(path, kind)]


def _has_text(kind: pa.DataType) -> bool:
    """Whether values of this type differ in length."""
    return not (pa.types.is_primitive(kind) or pa.types.is_fixed_size_list(kind))


def read(store: Store, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or these columns of it."""
    return store.patiently(path, lambda: pq.read_table(store.full(path), columns=columns, filesystem=store.filesystem))


def column_names(store: Store, path: str) -> list[str]:
    """The columns of a Parquet file, from its footer."""
    return list(store.patiently(path, lambda: pq.read_schema(store.full(path), filesystem=store.filesystem)).names)


def write_buckets(
    store: Store,
    path: str,
    table: pa.Table,
    buckets: npt.NDArray[np.int64],
    num_buckets: int,
    *,
    durable: bool = True,
) -> None:
    """Write an Arrow file whose ``b``-th record batch holds the rows of bucket ``b``, so that a reader seeks to it.

    ``buckets`` (rows,) are numbers below ``num_buckets``; rows of a bucket keep their order. Text is compressed: of
    numbers, once they are narrow, no more is to be gained than it costs.
    """
    table = narrowed(table)
    keys = buckets.astype(np.uint16) if num_buckets <= 1 << 16 else buckets  # of 16 bits NumPy makes a radix sort
    ordered = table.take(pa.array(np.argsort(keys, kind="stable")))
    ends = np.cumsum(np.bincount(buckets, minlength=num_buckets))
    options = pa.ipc.IpcWriteOptions(compression="lz4" if any(map(_has_text, table.schema.types)) else None)
    with (
        store.open_output(path, durable=durable) as stream,
        pa.ipc.new_file(stream, table.schema, options=options) as writer,
    ):
        for start, stop in zip([0, *ends[:-1]], ends, strict=True):
            whole = ordered.slice(start, stop - start).combine_chunks().to_batches()
            writer.write_batch(whole[0] if whole else pa.RecordBatch.from_pylist([], schema=table.schema))


def read_all_buckets(store: Store, path: str) -> pa.Table:
    """The rows of all buckets of a file that ``write_buckets`` made."""
    return store.read_with(path, lambda file: widened(pa.ipc.open_file(file).read_all()))


def read_bucket(store: Store, path: str, bucket: int) -> pa.Table:
    """The rows of one bucket of a file that ``write_buckets`` made."""
    return store.read_with(
        path, lambda file: widened(pa.Table.from_batches([pa.ipc.open_file(file).get_batch(bucket)]))
    )
