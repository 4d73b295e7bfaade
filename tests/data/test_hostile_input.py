"""Broken and hostile sources: each ends in a counted drop, a quarantined row, or one line that names the file.

============================================================  =====================================================
what the source holds                                         what comes of it
============================================================  =====================================================
an empty file; a file that is cut anywhere, or is no Parquet  one line, before Ray starts
a damaged page; a file replaced while it is read              one line, from the task that reads it
files without rows or row groups                              nothing, beside others; one line where all are so
columns of a wrong type, or twice of one name                 one line, before Ray starts
a user, item or time column of nothing but nulls              every row quarantined, then one line with the counts
ids of 10 MB; empty ids; ids that are no UTF-8                quarantined as ``null_user`` or ``null_item``
numbers as ids that are NaN, infinite, not whole, too large   quarantined as ``null_user`` or ``null_item``
times that are NaN, infinite, negative, zero or far off       quarantined as ``time_out_of_range``
weights that are NaN, infinite or negative                    quarantined as ``bad_weight``
event types of 10 MB                                          quarantined as ``unknown_event``
============================================================  =====================================================
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import journey
from raycl.config import Config
from raycl.data import ray_pairs, sources
from raycl.errors import InputError
from raycl.storage import tables
from tests.data import whole

SIZE = 120
LONG = "x" * 10_000_000
GOOD: dict[str, Any] = {
    "user_id": pa.array([f"u{row % 12}" for row in range(SIZE)]),
    "item_id": pa.array([f"i{row % 7}" for row in range(SIZE)]),
    "timestamp": pa.array(range(1, SIZE + 1)),
    "event": pa.array(["view"] * SIZE),
    "weight": pa.array([1.0] * SIZE),
}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    whole.without_ray(monkeypatch)


def config(folder: Path) -> Config:
    columns = {"event": "event", "weight": "weight"}
    logs = [{"uri": str(folder / "log"), "columns": columns}]
    return whole.config(folder, logs=logs, event_weights={"view": 1.0}, items=None, users=None)


def write(folder: Path, name: str = "good", **columns: Any) -> Path:
    """A file of the good log, some of its columns replaced."""
    (folder / "log").mkdir(exist_ok=True)
    path = folder / "log" / f"{name}.parquet"
    pq.write_table(pa.table(GOOD | columns), path)
    return path


def mixed(values: list[Any], name: str) -> Any:
    """The good column with these values in its first rows."""
    kept = GOOD[name].to_pylist()[len(values) :]
    if any(isinstance(value, float) for value in values):
        kept = [float(value) for value in kept]
    return pa.array(values + kept)


def outcome(folder: Path) -> tuple[dict[str, int], Counter[str]]:
    """What was dropped, and the quarantined rows by reason; every row is accounted for."""
    settings = config(folder)
    version, _ = ray_pairs.run(settings, journey.workspace(settings))
    counts, dropped = version.manifest.counts, version.manifest.dropped
    assert counts["rows_in"] == counts["events"] + sum(dropped.values())
    files = [tables.read(version.store, f"quarantine/{name}") for name in version.store.names("quarantine")]
    return dropped, Counter(reason for table in files for reason in table["reason"].to_pylist())


def refusal(folder: Path) -> str:
    settings = config(folder)
    with pytest.raises(InputError) as caught:
        ray_pairs.run(settings, journey.workspace(settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_is_refused_by_name_before_anything_starts(tmp_path: Path, share: float) -> None:
    write(tmp_path)
    cut = write(tmp_path, "cut")
    content = cut.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        InputError, match=r"^logs\.0\.uri: file .*/cut\.parquet is not readable Parquet \(.*\): replace it"
    ):
        sources.open_inputs(config(tmp_path))


@pytest.mark.parametrize(
    "noise", [b"PAR1" * 3, b"PAR1\xff\xff\xff\x7fPAR1", b"\0" * 100, b"a,b\n1,2\n", b"PAR1\x10\0\0\0PAR1"]
)
def test_what_is_no_parquet_is_refused_by_name(tmp_path: Path, noise: bytes) -> None:
    write(tmp_path)
    (tmp_path / "log" / "noise.parquet").write_bytes(noise)
    assert refusal(tmp_path).startswith(f"logs.0.uri: file {tmp_path}/log/noise.parquet is not readable Parquet (")


def test_a_damaged_page_is_one_line_of_the_task_that_reads_it(tmp_path: Path) -> None:
    path = write(tmp_path)
    content = bytearray(path.read_bytes())
    content[4:300] = b"\xff" * 296
    path.write_bytes(content)
    assert refusal(tmp_path).startswith(f"logs.0.uri: file {path} is damaged (")


@pytest.mark.parametrize("rows", [0, 60])
def test_a_file_that_is_replaced_while_it_is_read_is_one_line(tmp_path: Path, rows: int) -> None:
    path = write(tmp_path)
    settings = config(tmp_path)
    (fragment,) = sources.fragments(sources.open_inputs(settings).logs, 10**6)
    pq.write_table(pa.table(GOOD).slice(0, rows), path)
    with pytest.raises(InputError, match=rf"^logs\.0\.uri: file {path} (was written anew|is damaged)"):
        fragment.read(["user_id"])


def test_files_without_rows_are_nothing_beside_others(tmp_path: Path) -> None:
    write(tmp_path)
    nothing = pa.table(GOOD).slice(0, 0)
    pq.write_table(nothing, tmp_path / "log" / "none.parquet")
    pq.ParquetWriter(tmp_path / "log" / "no_groups.parquet", nothing.schema).close()
    assert pq.read_metadata(tmp_path / "log" / "no_groups.parquet").num_row_groups == 0
    assert outcome(tmp_path) == ({}, Counter())
    (tmp_path / "log" / "good.parquet").unlink()
    assert refusal(tmp_path) == f"logs.0.uri={tmp_path}/log holds no rows in 2 Parquet files: check the path"


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.struct([("x", pa.int8())]), pa.list_(pa.list_(pa.int8())), pa.time32("s")]
)
def test_a_wrong_type_is_refused_by_field_and_file(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    write(tmp_path, **{name: pa.nulls(SIZE, kind)})
    role = {"user_id": "user", "item_id": "item", "timestamp": "time"}.get(name, name)
    message = refusal(tmp_path)
    assert message.startswith(f"logs.0.columns.{role}={name} is of type ")
    assert " in file good.parquet: " in message


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize(
    ("name", "reason"), [("user_id", "null_user"), ("item_id", "null_item"), ("timestamp", "null_time")]
)
def test_a_column_of_nulls_is_quarantined_and_told(tmp_path: Path, name: str, reason: str, typed: bool) -> None:
    write(tmp_path, **{name: pa.nulls(SIZE, GOOD[name].type if typed else pa.null())})
    assert refusal(tmp_path).startswith(f"logs: {SIZE} rows leave no training pairs (dropped: {{'{reason}': {SIZE}}})")
    write(tmp_path, "more")
    assert outcome(tmp_path)[1] == {reason: SIZE}


@pytest.mark.parametrize(("name", "reason"), [("user_id", "null_user"), ("item_id", "null_item")])
@pytest.mark.parametrize(
    "values",
    [
        [LONG, LONG, "", None, "é" * 513],
        [float("nan"), float("inf"), -float("inf"), 0.5, 2.0**63, 1e300],
    ],
    ids=["text", "numbers"],
)
def test_ids_that_are_none_are_quarantined(tmp_path: Path, name: str, reason: str, values: list[Any]) -> None:
    if isinstance(values[0], float):
        write(tmp_path, **{name: pa.array(values + [float(row % 7) for row in range(SIZE - len(values))])})
    else:
        write(tmp_path, **{name: mixed(values, name)})
    assert outcome(tmp_path)[1] == {reason: len(values)}


def test_the_longest_id_has_1024_bytes(tmp_path: Path) -> None:
    write(tmp_path, item_id=mixed(["x" * 1_024] * 3 + ["é" * 512] * 3 + ["x" * 1_025] * 3, "item_id"))
    assert outcome(tmp_path)[1] == {"null_item": 3}


def test_ids_that_are_no_utf8_are_quarantined(tmp_path: Path) -> None:
    raw = pa.array([b"\xff\xfe", b"a\x80", b"\xc3\xa9", *(text.encode() for text in GOOD["item_id"].to_pylist()[3:])])
    write(tmp_path, item_id=pa.Array.from_buffers(pa.string(), SIZE, raw.buffers()))
    assert outcome(tmp_path)[1] == {"null_item": 2}


def test_times_that_are_none_are_quarantined(tmp_path: Path) -> None:
    values = [float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e300, -1e300, 1e12]
    write(tmp_path, timestamp=mixed(values, "timestamp"))
    assert outcome(tmp_path)[1] == {"time_out_of_range": len(values)}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_moments_that_no_event_can_have_are_quarantined(tmp_path: Path, unit: str) -> None:
    per_ms = {"s": 1, "ms": 1, "us": 1_000, "ns": 1_000_000}[unit]
    times = pa.array([-(2**63), 2**63 - 1, 0, -1, 2**62, *(row * per_ms for row in range(6, SIZE + 1))])
    write(tmp_path, timestamp=times if unit == "s" else times.cast(pa.timestamp(unit)))
    assert outcome(tmp_path)[1] == {"time_out_of_range": 5}


def test_weights_that_are_none_are_quarantined(tmp_path: Path) -> None:
    write(tmp_path, weight=mixed([float("nan"), float("inf"), -float("inf"), -1.0, 1e300, None], "weight"))
    assert outcome(tmp_path)[1] == {"bad_weight": 6}


def test_event_types_of_any_length_are_unknown(tmp_path: Path) -> None:
    write(tmp_path, event=mixed([LONG, "", None, "View"], "event"))
    assert outcome(tmp_path)[1] == {"unknown_event": 4}


def test_an_item_table_may_hold_what_a_log_may(tmp_path: Path) -> None:
    write(tmp_path)
    ids = [LONG, "", None, *(f"i{number}" for number in range(7))]
    pq.write_table(
        pa.table({"id": ids, "name": pa.nulls(10), "price": np.full(10, np.nan)}), tmp_path / "items.parquet"
    )
    items = {"uri": str(tmp_path / "items.parquet"), "id_column": "id", "title_column": "name", "display": ["price"]}
    settings = whole.config(
        tmp_path, logs=config(tmp_path).model_dump()["logs"], items=items, users=None, event_weights={"view": 1}
    )
    counts = ray_pairs.run(settings, journey.workspace(settings))[0].manifest.counts
    assert (counts["items_without_id"], counts["items"]) == (3, 7)
