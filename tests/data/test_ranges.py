"""Logs read by date: what is not opened, what is not read, what is left out, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raycl import journey, lineage
from raycl.config import Config
from raycl.data import ray_pairs, sources
from raycl.errors import InputError
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Version
from tests.data import whole

START, DAYS, DAY_S = "2026-01-01", 10, 86_400
START_S = int(np.datetime64(START, "s").astype(np.int64))
RANGE: dict[str, Any] = {"since": "2026-01-04", "until": "2026-01-06T12:00:00Z"}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    whole.without_ray(monkeypatch)


def rows() -> pa.Table:
    """4,000 events in ten days, some of them without user or time, or with an impossible time."""
    generator = np.random.default_rng(3)
    size = 4_000
    times = np.sort(generator.integers(START_S, START_S + DAYS * DAY_S, size)).astype(np.float64)
    times[generator.integers(0, size, 60)] = np.nan
    times[generator.integers(0, size, 60)] = -5.0
    users = generator.integers(0, 90, size).astype(np.float64)
    no_time = np.isin(np.arange(size), generator.integers(0, size, 60))
    return pa.table(
        {
            "user_id": pa.array(users, mask=users == 7).cast(pa.int64()),
            "item_id": generator.integers(0, 60, size),
            "timestamp": pa.array(times, mask=no_time, from_pandas=False),
        }
    )


def possible() -> pa.Table:
    """Those without an impossible time, which would widen what a row group's statistics span."""
    times = rows()["timestamp"]
    return rows().filter(pc.invert(pc.less(times, 0).fill_null(False)))


def in_range(table: pa.Table) -> pa.Table:
    """The rows that a range may not leave out, found by plain comparison."""
    first = START_S + 3 * DAY_S
    times = table["timestamp"].to_numpy()
    with np.errstate(invalid="ignore"):
        outside = (times > 0) & ((times < first) | (times >= first + 2.5 * DAY_S))
    return table.filter(pa.array(~outside))


def config(folder: Path, uri: Path | str, pairs: dict[str, Any] | None = None, **log: Any) -> Config:
    logs = [{"uri": str(uri), **log}]
    return whole.config(folder, {"rows_per_fragment": 170, **(pairs or {})}, logs=logs, items=None, users=None)


def run(settings: Config) -> Version:
    return ray_pairs.run(settings, journey.workspace(settings))[0]


def without_row_groups(table: pa.Table, folder: Path) -> None:
    """One row group, in no order: nothing to be told from statistics."""
    folder.mkdir(parents=True)
    order = np.random.default_rng(1).permutation(table.num_rows)
    pq.write_table(table.take(pa.array(order)), folder / "a.parquet")


def with_row_groups(table: pa.Table, folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(4):
        part = table.slice(number * 1_000, 1_000)
        pq.write_table(part, folder / f"{number}.parquet", row_group_size=50)


@pytest.mark.parametrize("write", [without_row_groups, with_row_groups])
@pytest.mark.parametrize("pairs", [{}, {"split": {"kind": "time", "val_share": 0.2}}, {"min_item_events": 14}])
def test_the_pairs_of_a_range_are_those_of_a_log_that_holds_no_other_rows(
    tmp_path: Path, write: Any, pairs: dict[str, Any]
) -> None:
    write(rows(), tmp_path / "all")
    without_row_groups(in_range(rows()), tmp_path / "chosen")
    # one fragment, since the cuts of a split by time come from a sketch of each
    pairs = pairs | {"rows_per_fragment": 10**6}
    ranged, plain = (
        run(config(tmp_path, tmp_path / "all", pairs, **RANGE)),
        run(config(tmp_path, tmp_path / "chosen", pairs)),
    )
    found, expected = whole.found(ranged), whole.found(plain)
    assert found.num_pairs["test"] > 20
    if write is without_row_groups:
        outside = found.dropped.pop("outside_range")
        assert outside == rows().num_rows - in_range(rows()).num_rows
        assert found == expected
    elif "split" not in pairs:  # its cuts are the middle of four sketches
        assert (found.rows, found.num_pairs, found.vocabulary) == (
            expected.rows,
            expected.num_pairs,
            expected.vocabulary,
        )


@pytest.mark.parametrize("write", [without_row_groups, with_row_groups])
def test_every_row_that_is_read_is_kept_or_dropped_for_a_reason(tmp_path: Path, write: Any) -> None:
    write(rows(), tmp_path / "log")
    version = run(config(tmp_path, tmp_path / "log", **RANGE))
    counts, dropped = version.manifest.counts, version.manifest.dropped
    assert counts["rows_in"] == counts["events"] + sum(dropped.values())
    assert dropped["outside_range"] > 0
    assert {"null_user", "null_time", "time_out_of_range"} <= set(dropped)
    quarantined = [tables.read(version.store, f"quarantine/{name}") for name in version.store.names("quarantine")]
    reasons = {reason for table in quarantined for reason in table["reason"].to_pylist()}
    assert "outside_range" not in reasons
    for table in quarantined:
        raw = {name: pq.read_table(name) for name in set(table["file"].to_pylist())}
        for row in table.to_pylist():
            own = raw[row["file"]].slice(row["row"], 1).to_pylist()[0]
            assert repr({name: row[name] for name in own}) == repr(own)


def test_row_groups_of_other_times_are_not_read(tmp_path: Path) -> None:
    with_row_groups(possible(), tmp_path / "log")
    settings = config(tmp_path, tmp_path / "log", **RANGE)
    (log,) = sources.open_inputs(settings).logs
    assert 900 < log.num_rows < 1_200
    # damage the pages of all other row groups: nothing that is read knows of it
    for path in (tmp_path / "log").iterdir():
        metadata, content = pq.read_metadata(path), bytearray(path.read_bytes())
        chosen = {group for file in log.files if file.path == path.name for group in file.chosen}
        for group in set(range(metadata.num_row_groups)) - chosen:
            for position in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(position)
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
        path.write_bytes(content)
    counts = run(settings).manifest.counts
    assert counts["rows_in"] == log.num_rows


def by_day(folder: Path) -> Path:
    """The rows by hive partition of their day; those without a time in the default one."""
    table = possible()
    times = np.nan_to_num(table["timestamp"].to_numpy()).astype("datetime64[s]")
    days = np.datetime_as_string(times.astype("datetime64[D]"))
    labels = np.where(times > np.datetime64(0, "s"), days, "__HIVE_DEFAULT_PARTITION__")
    for label in np.unique(labels):
        (folder / f"dt={label}").mkdir(parents=True)
        pq.write_table(table.filter(pa.array(labels == label)), folder / f"dt={label}" / "part.parquet")
    return folder


def test_folders_of_other_dates_are_not_opened(tmp_path: Path) -> None:
    folder = by_day(tmp_path / "log")
    for day in (1, 2, 3, 7, 8, 9, 10):
        (folder / f"dt=2026-01-{day:02}" / "part.parquet").write_bytes(b"no parquet")
    settings = config(tmp_path, folder, date_partition="dt", **RANGE)
    (log,) = sources.open_inputs(settings).logs
    assert [file.path.split("/")[0] for file in log.files] == [
        *(f"dt=2026-01-{day:02}" for day in (4, 5, 6)),
        "dt=__HIVE_DEFAULT_PARTITION__",
    ]
    without_row_groups(in_range(possible()), tmp_path / "chosen")
    found = whole.found(run(settings))
    half_a_day = found.dropped.pop("outside_range")
    assert 150 < half_a_day < 250
    assert found == whole.found(run(config(tmp_path, tmp_path / "chosen")))


def test_a_range_of_a_log_without_footers_in_it_is_refused_with_its_settings(tmp_path: Path) -> None:
    folder = by_day(tmp_path / "log")
    logs: list[dict[str, Any]] = [{"date_partition": "dt"}, {}]
    for log in logs:
        (folder / "dt=__HIVE_DEFAULT_PARTITION__" / "part.parquet").unlink(missing_ok=True)
        with pytest.raises(InputError) as caught:
            sources.open_inputs(config(tmp_path, folder, since="2027-01-01", **log))
        assert str(caught.value) == (
            f"logs.0.since=2027-01-01T00:00:00+00:00: no file of {folder} holds such times; move the range, or check"
            f" logs.0.time_unit and logs.0.date_partition"
        )


def test_a_file_outside_the_range_makes_no_other_version(tmp_path: Path) -> None:
    folder = by_day(tmp_path / "log")

    def name(**log: Any) -> str:
        return run(config(tmp_path, folder, **log)).name

    for log in ({"date_partition": "dt", **RANGE}, RANGE):
        before = name(**log)
        for day in ("2026-02-01", "2025-12-31"):
            (folder / f"dt={day}").mkdir(exist_ok=True)
            moment = int(np.datetime64(day, "s").astype(np.int64))
            late = pa.table({"user_id": [1], "item_id": [1], "timestamp": [float(moment)]})
            pq.write_table(late, folder / f"dt={day}" / f"{len(log)}.parquet")
        assert name(**log) == before
        assert name(**log | {"until": "2026-01-06T12:00:01Z"}) != before
        assert name(**log | {"until": "2026-02-02"}) != before
        (folder / "dt=2026-01-05" / f"more-{len(log)}.parquet").write_bytes(
            (folder / "dt=2026-01-05" / "part.parquet").read_bytes()
        )
        assert name(**log) != before


def test_a_range_is_of_the_fingerprint_and_found_by_later_stages(tmp_path: Path) -> None:
    folder = by_day(tmp_path / "log")
    settings = config(tmp_path, folder, **RANGE)
    version = run(settings)
    assert lineage.pairs(settings, journey.workspace(settings)).name == version.name
    assert json.loads(json.dumps(version.manifest.config))["logs"][0]["since"] == "2026-01-04T00:00:00Z"


def test_partition_keys_are_columns_like_any_other(tmp_path: Path) -> None:
    table = rows()
    for item in range(60):
        for kind in ("view", "buy%21"):
            place = tmp_path / "log" / f"kind={kind}" / f"item={item}"
            place.mkdir(parents=True)
            mine = table.filter(pc.equal(table["item_id"], item))
            half = mine.slice(0, mine.num_rows // 2) if kind == "view" else mine.slice(mine.num_rows // 2)
            pq.write_table(half.drop_columns(["item_id"]), place / "a.parquet")
    weights = {"view": 1.0, "buy!": 2.0}
    columns = {"item": "item", "event": "kind"}
    logs = [{"uri": str(tmp_path / "log"), "columns": columns}]
    by_folder = whole.config(tmp_path, logs=logs, items=None, users=None, event_weights=weights)
    inputs = sources.open_inputs(by_folder)
    assert (inputs.item_type, inputs.logs[0].types["kind"]) == (pa.int64(), pa.large_string())
    flat = [one.read(["user_id", "timestamp", "kind", "item"]) for one in sources.fragments(inputs.logs, 10**6)]
    pq.write_table(pa.concat_tables(flat), tmp_path / "flat.parquet")
    logs = [{"uri": str(tmp_path / "flat.parquet"), "columns": columns}]
    in_files = whole.config(tmp_path, logs=logs, items=None, users=None, event_weights=weights)
    found = whole.found(run(by_folder))
    assert found == whole.found(run(in_files))
    assert {entry["item"] for entry in found.vocabulary} == set(range(60))
    assert {weight for row in found.rows["train"] for weight in row.weights} == {1.0, 2.0}


def test_a_column_in_the_file_goes_before_its_partition(tmp_path: Path) -> None:
    (tmp_path / "item_id=5").mkdir()
    pq.write_table(rows().slice(0, 20), tmp_path / "item_id=5" / "a.parquet")
    (log,) = sources.open_inputs(config(tmp_path, tmp_path / "item_id=5")).logs
    assert log.read(["item_id"])["item_id"].to_pylist() == rows()["item_id"].to_pylist()[:20]


@pytest.mark.parametrize("key", ["dt={}", "year={}/month={}/day={}"])
def test_from_s3_the_pairs_are_those_from_disk(tmp_path: Path, s3_store: Store, key: str) -> None:
    table = rows().filter(pc.greater(rows()["timestamp"], 0))
    keys = ["dt"] if key == "dt={}" else ["year", "month", "day"]
    for day in range(1, DAYS + 1):
        first = START_S + (day - 1) * DAY_S
        times = table["timestamp"].to_numpy()
        part = table.filter(pa.array((times >= first) & (times < first + DAY_S)))
        values = ["2026", "01", f"{day:02}"]
        path = key.format(*(["-".join(values)] if len(keys) == 1 else values))
        (tmp_path / "log" / path).mkdir(parents=True)
        pq.write_table(part, tmp_path / "log" / path / "a.parquet", row_group_size=30)
        s3_store.write(f"log/{path}/a.parquet", (tmp_path / "log" / path / "a.parquet").read_bytes())
    s3_store.write("log/dt=2026-01-20/year=2026/month=01/day=20/a.parquet", b"no parquet")
    bucket = f"{s3_store.uri}/log"
    there = run(config(tmp_path, f"{bucket}/**/*.parquet", date_partition=keys, **RANGE))
    here = run(config(tmp_path, tmp_path / "log", date_partition=keys, **RANGE))
    assert whole.found(there) == whole.found(here)
    assert there.manifest.counts == here.manifest.counts
    assert there.manifest.dropped["outside_range"] > 0
