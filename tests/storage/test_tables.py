"""Tables come back from storage as they went, and a bucket's rows are found without the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raycl.storage import tables
from raycl.storage.store import Store


def test_a_table_reads_back_whole_or_by_column(store: Store) -> None:
    table = pa.table({"user": [1, 2, None], "items": [[1, 2], [], [3]], "title": ["a", "ü", ""]})
    tables.write(store, "data/part.parquet", table)
    assert tables.read(store, "data/part.parquet").equals(table)
    assert tables.read(store, "data/part.parquet", ["title", "user"]).equals(table.select(["title", "user"]))
    assert store.files() == ["data/part.parquet"]


def test_a_table_that_cannot_be_written_leaves_nothing(store: Store) -> None:
    intervals = pa.array([None], pa.month_day_nano_interval())  # Parquet has no such type
    with pytest.raises(NotImplementedError):
        tables.write(store, "data/part.parquet", pa.table({"a": intervals}))
    assert store.files() == []


def test_a_bucket_holds_its_rows_in_their_order_and_may_be_empty(store: Store) -> None:
    table = pa.table({"user": ["a", "b", "c", "d", "e"], "event": [1, 2, 3, 4, 5]})
    tables.write_buckets(store, "rows.arrow", table, np.array([3, 0, 3, 1, 0]), 5)
    found = [tables.read_bucket(store, "rows.arrow", bucket)["user"].to_pylist() for bucket in range(5)]
    assert found == [["b", "e"], ["d"], [], ["a", "c"], []]
    assert tables.read_bucket(store, "rows.arrow", 2).schema == table.schema


@settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 4), max_size=30), st.integers(5, 7))
def test_buckets_are_what_a_loop_over_the_rows_finds(tmp_path: Path, buckets: list[int], num_buckets: int) -> None:
    store = Store(str(tmp_path))
    table = pa.table({"row": pa.array(range(len(buckets)), pa.int64())})
    tables.write_buckets(store, "rows.arrow", table, np.array(buckets, dtype=np.int64), num_buckets)
    for bucket in range(num_buckets):
        expected = [row for row, held in enumerate(buckets) if held == bucket]
        assert tables.read_bucket(store, "rows.arrow", bucket)["row"].to_pylist() == expected
