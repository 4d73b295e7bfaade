"""Row groups chosen by their statistics, and columns read."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl.config import LogSource
from raycl.data.clean import Cleaner
from raycl.data.footers import Selection, read_footer, read_groups
from raycl.data.times import TimeRange
from raycl.errors import InputError
from raycl.storage.store import Store

SECONDS = np.arange(1_000, 1_100)
TIMES: dict[str, tuple[Any, str]] = {
    "int_s": (SECONDS, "s"),
    "int_ms": (SECONDS * 1_000, "ms"),
    "int_us": (SECONDS * 1_000_000 + 999, "us"),
    "int_ns": (SECONDS * 1_000_000_000, "ns"),
    "int32": (SECONDS.astype(np.int32), "s"),
    "uint64": (SECONDS.astype(np.uint64), "s"),
    "float_s": (SECONDS + 0.25, "s"),
    "float32": (SECONDS.astype(np.float32), "s"),
    **{
        f"stamp_{unit}": (pa.array(SECONDS).cast(pa.timestamp("s")).cast(pa.timestamp(unit)), "s")
        for unit in ("s", "ms", "us", "ns")
    },
    "zoned": (pa.array(SECONDS).cast(pa.timestamp("s")).cast(pa.timestamp("us", "Asia/Colombo")), "s"),
}


def groups_of(folder: Path, column: Any, unit: str, wanted: TimeRange, **options: Any) -> tuple[int, ...]:
    """Row groups of ten rows that are chosen."""
    pq.write_table(
        pa.table({"when": column, "x": np.arange(len(column))}), folder / "a.parquet", row_group_size=10, **options
    )
    return read_footer(Store(str(folder)), "logs.0", "a.parquet", Selection("when", unit, wanted)).chosen


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize(
    "bounds", [(1_010_000, 1_030_000), (1_015_000, 1_016_000), (0, 1_000_001), (1_099_000, 2**60), (1_100_000, 2**61)]
)
def test_groups_are_chosen_that_hold_a_row_of_the_range(tmp_path: Path, kind: str, bounds: tuple[int, int]) -> None:
    column, unit = TIMES[kind]
    wanted = TimeRange(*bounds)
    log = LogSource.model_validate({"uri": "x", "columns": {"time": "when"}, "time_unit": unit})
    times = Cleaner(log, {}, 2**61, pa.int64(), pa.int64())._times(pa.table({"when": column}), np.zeros(100, np.uint8))
    inside = ~wanted.outside(times).reshape(10, 10)
    assert list(groups_of(tmp_path, column, unit, wanted)) == np.flatnonzero(inside.any(axis=1)).tolist()


def test_days_are_chosen_by_date(tmp_path: Path) -> None:
    days = pa.array(np.arange(100, dtype=np.int32)).cast(pa.date32())
    day_ms = 86_400_000
    for column in (days, days.cast(pa.date64())):
        assert groups_of(tmp_path, column, "s", TimeRange(10 * day_ms, 20 * day_ms)) == (1,)
        assert groups_of(tmp_path, column, "s", TimeRange(10 * day_ms, 20 * day_ms + 1)) == (1, 2)


EVERY = tuple(range(10))


@pytest.mark.parametrize(
    ("column", "options"),
    [
        (SECONDS, {"write_statistics": False}),
        (pa.nulls(100, pa.int64()), {}),
        (np.full(100, np.nan), {}),
        (np.where(SECONDS % 2, np.inf, 1.0), {}),
        (np.where(SECONDS % 2, 2**62, -(2**62)), {}),
        (SECONDS.astype(np.float16), {}),
        (pa.array([Decimal(1)] * 100), {}),
        (pa.array(map(str, SECONDS)), {}),
        (pa.array(SECONDS).cast(pa.timestamp("ns")), {"use_deprecated_int96_timestamps": True}),
    ],
)
def test_a_group_whose_statistics_do_not_tell_is_chosen(tmp_path: Path, column: Any, options: dict[str, Any]) -> None:
    assert groups_of(tmp_path, column, "s", TimeRange(10**15, 10**16), **options) == EVERY


def test_a_column_that_the_file_lacks_chooses_every_group(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": SECONDS}), tmp_path / "a.parquet", row_group_size=10)
    footer = read_footer(Store(str(tmp_path)), "logs.0", "a.parquet", Selection("when", "s", TimeRange(0, 1)))
    assert (footer.chosen, footer.group_rows) == (EVERY, (10,) * 10)


def test_rows_without_a_time_do_not_keep_a_group(tmp_path: Path) -> None:
    column = pa.array([None if second % 2 else second for second in SECONDS.tolist()])
    assert groups_of(tmp_path, column, "s", TimeRange(1_050_000, 1_060_000)) == (5,)


def test_columns_are_stored_or_given_and_in_the_order_of_the_call(tmp_path: Path) -> None:
    stored = pa.table({"a": np.arange(6), "b": pa.array(list("uvwxyz")).dictionary_encode()})
    pq.write_table(stored, tmp_path / "a.parquet", row_group_size=2)
    given = {"c": pa.scalar("pe", pa.large_string()), "d": pa.scalar(None, pa.list_(pa.int8())), "e": pa.scalar(1)}
    read = read_groups(Store(str(tmp_path)), "items", "a.parquet", ["d", "b", "c", "a"], (0, 2), given)
    assert read.to_pydict() == {"d": [None] * 4, "b": list("uvyz"), "c": ["pe"] * 4, "a": [0, 1, 4, 5]}
    assert read.schema.types == [pa.list_(pa.int8()), pa.large_string(), pa.large_string(), pa.int64()]
    alone = read_groups(Store(str(tmp_path)), "items", "a.parquet", ["e"], (0, 2), given)
    assert alone["e"].to_pylist() == [1, 1, 1, 1]


def test_a_column_that_is_not_read_may_be_damaged(tmp_path: Path) -> None:
    marked = pa.array([datetime.date(2026, 1, 1).isoformat() + f"-{row:06}" for row in range(5_000)])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": np.arange(5_000), "broken": marked}), path, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(1)
    content[chunk.data_page_offset : chunk.data_page_offset + 400] = b"\xff" * 400
    path.write_bytes(content)
    store = Store(str(tmp_path))
    assert read_groups(store, "items", "a.parquet", ["a"], (0,), {})["a"].to_pylist() == list(range(5_000))
    with pytest.raises(
        InputError, match=r"^items\.uri: file .*/a\.parquet is damaged \(.*\): replace it or leave it out$"
    ):
        read_groups(store, "items", "a.parquet", ["a", "broken"], (0,), {})
