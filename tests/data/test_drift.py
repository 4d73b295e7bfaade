"""Files of one source that differ: equal results, a declared value, or one clear line."""

from __future__ import annotations

import copy
import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file, journey
from raycl.data import ray_pairs, sources
from raycl.errors import InputError
from tests.data import whole

LOG = {
    "user_id": pa.array([1, 2, 3]),
    "item_id": pa.array(["a", "b", "c"]),
    "timestamp": pa.array([10, 20, 30]),
    "event": pa.array(["view", "buy", "view"]),
}


def opened(folder: Path, first: dict[str, Any], second: dict[str, Any], **log: Any) -> sources.Inputs:
    """A log of two files; None removes a column of ``LOG``."""
    folder.mkdir(exist_ok=True)
    for name, changes in (("a", first), ("b", second)):
        columns = {key: values for key, values in (LOG | changes).items() if values is not None}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    source = {"uri": str(folder), "columns": {"event": "event"}, **log}
    weights = {"view": 1.0, "buy": 2.0}
    return sources.open_inputs(config_file.check({"workspace": "w", "logs": [source], "event_weights": weights}))


def refusal(folder: Path, first: dict[str, Any], second: dict[str, Any], **log: Any) -> str:
    with pytest.raises(InputError) as caught:
        opened(folder, first, second, **log)
    return str(caught.value)


def column_of(inputs: sources.Inputs, name: str) -> list[Any]:
    return [value for one in sources.fragments(inputs.logs, 10) for value in one.read([name])[name].to_pylist()]


KINDS: dict[str, list[pa.DataType]] = {
    "user_id": [pa.int8(), pa.int32(), pa.uint16(), pa.int64(), pa.float64()],
    "item_id": [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
    "timestamp": [pa.int32(), pa.int64(), pa.float64(), *(pa.timestamp(unit) for unit in ("s", "ms", "us", "ns"))],
    "event": [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.large_string())],
}


def in_type(values: Any, kind: pa.DataType) -> Any:
    """The same values in another type; whole seconds as moments."""
    if pa.types.is_dictionary(kind):
        return values.dictionary_encode().cast(kind)
    return (values.cast(pa.timestamp("s")) if pa.types.is_timestamp(kind) else values).cast(kind)


def pairs_of(folder: Path, drift: dict[str, pa.DataType]) -> whole.Truth:
    """The pairs of a log of two files, of which the second has these types."""
    (folder / "drifting").mkdir(exist_ok=True)
    first = {name: pa.concat_arrays([values] * 9) for name, values in LOG.items()} | {
        "timestamp": pa.array(range(1, 28))
    }
    second = first | {"timestamp": pa.array(range(100, 127))}
    pq.write_table(pa.table(first), folder / "drifting" / "a.parquet")
    second |= {name: in_type(second[name], kind) for name, kind in drift.items()}
    pq.write_table(pa.table(second), folder / "drifting" / "b.parquet")
    logs = [{"uri": str(folder / "drifting"), "columns": {"event": "event"}}]
    config = whole.config(folder, logs=logs, items=None, users=None)
    return whole.found(ray_pairs.run(config, journey.workspace(config), force=True)[0])


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in KINDS.items() for kind in kinds], ids=str)
def test_types_that_differ_without_loss_give_the_same_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: pa.DataType
) -> None:
    whole.without_ray(monkeypatch)
    drifted = pairs_of(tmp_path, {name: kind})
    assert drifted == pairs_of(tmp_path, {})
    assert drifted.num_pairs["train"] > 30


@pytest.mark.parametrize(
    ("name", "other", "told"),
    [
        (
            "user_id",
            ["x", "y", "z"],
            "logs.0.columns.user=user_id is of type int64 in file a.parquet and string in file",
        ),
        (
            "user_id",
            [[1], [2], [3]],
            "logs.0.columns.user=user_id is of type list<element: int64> in file b.parquet: ids",
        ),
        ("timestamp", ["1", "2", "3"], "logs.0.columns.time=timestamp is of type string in file b.parquet: use a"),
        ("event", [1.0, 2.0, 3.0], "logs.0.columns.event=event is of type string in file a.parquet and double in file"),
        (
            "event",
            [datetime.date(2026, 1, 1)] * 3,
            "logs.0.columns.event=event is of type string in file a.parquet and",
        ),
    ],
)
def test_other_drift_is_refused(tmp_path: Path, name: str, other: Any, told: str) -> None:
    assert refusal(tmp_path, {}, {name: pa.array(other)}).startswith(told)


def test_a_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([*LOG.values(), LOG["user_id"]], names=[*LOG, "user_id"])
    pq.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"^logs\.0\.uri: file a\.parquet has column 'user_id' twice: rename one"):
        sources.open_inputs(config_file.check({"workspace": "w", "logs": [{"uri": str(tmp_path)}]}))


def test_a_column_that_a_file_lacks_is_what_was_declared(tmp_path: Path) -> None:
    inputs = opened(tmp_path, {}, {"event": None}, defaults={"event": "buy"})
    assert column_of(inputs, "event") == ["view", "buy", "view", "buy", "buy", "buy"]
    assert inputs.logs[0].read(["event", "user_id"])["event"].to_pylist() == column_of(inputs, "event")


def test_what_a_file_is_given_travels_to_other_processes(tmp_path: Path) -> None:
    found = sources.fragments(opened(tmp_path, {}, {"event": None}, defaults={"event": "buy"}).logs, 10)
    sent = copy.deepcopy(found)  # goes through the same protocol as pickle
    assert [one.read(["event"]) for one in sent] == [one.read(["event"]) for one in found]


def test_a_default_stands_for_the_column_where_no_file_has_it(tmp_path: Path) -> None:
    inputs = opened(tmp_path, {"event": None}, {"event": None}, defaults={"event": "view"})
    assert column_of(inputs, "event") == ["view"] * 6
    assert inputs.logs[0].types["event"] == pa.large_string()
    nulls = opened(tmp_path, {"user_id": pa.nulls(3)}, {"user_id": None}, defaults={"user_id": 7})
    assert (nulls.user_type, column_of(nulls, "user_id")) == (pa.int64(), [None] * 3 + [7] * 3)


def test_a_default_of_another_value_makes_another_version(tmp_path: Path) -> None:
    kinds = [opened(tmp_path, {}, {"event": None}, defaults={"event": value}) for value in ("buy", "view")]
    assert kinds[0].logs[0].identity() != kinds[1].logs[0].identity()


def test_the_error_for_a_missing_column_names_the_default_as_a_remedy(tmp_path: Path) -> None:
    assert refusal(tmp_path, {"event": None}, {}) == (
        "logs.0.uri: file a.parquet has no column 'event' (it has user_id, item_id, timestamp): name the right column"
        " in logs.0, or declare what it is there in logs.0.defaults.event"
    )
    assert refusal(tmp_path, {"event": None}, {"event": None}).endswith("name the right column in logs.0")


ZONED = pa.timestamp("us", "UTC")
STAMP = datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        (pa.int32(), 7, 7),
        (pa.int32(), 7.0, 7),
        (pa.float32(), 2, 2.0),
        (pa.string(), "x", "x"),
        (pa.dictionary(pa.int8(), pa.string()), "x", "x"),
        (pa.dictionary(pa.int8(), pa.int64()), 3, 3),
        (pa.bool_(), True, True),
        (pa.decimal128(9, 2), 1.5, Decimal("1.50")),
        (pa.date32(), "2026-01-02", datetime.date(2026, 1, 2)),
        (pa.timestamp("ms"), "2026-01-02T03:00:00Z", STAMP.replace(tzinfo=None)),
        (ZONED, "2026-01-02T03:00:00", STAMP),
        (pa.list_(pa.int8()), None, None),
        (pa.int8(), None, None),
    ],
    ids=str,
)
def test_a_default_takes_the_type_of_the_column(tmp_path: Path, kind: pa.DataType, written: Any, value: Any) -> None:
    items = catalogue(tmp_path, kind, written)
    assert items.read(["odd"])["odd"].to_pylist() == [None, value]


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (pa.int32(), "seven"),
        (pa.int32(), 1.5),
        (pa.int8(), 300),
        (pa.int8(), True),
        (pa.float32(), True),
        (pa.float64(), "1"),
        (pa.string(), 1),
        (pa.bool_(), 1),
        (pa.bool_(), "true"),
        (pa.date32(), "soon"),
        (pa.timestamp("ms"), 5),
        (pa.decimal128(9, 2), "x"),
        (pa.decimal128(9, 2), 0.001),
        (pa.list_(pa.int8()), 1),
        (pa.struct([("a", pa.int8())]), "a"),
    ],
    ids=str,
)
def test_a_default_of_another_type_is_refused(tmp_path: Path, kind: pa.DataType, written: Any) -> None:
    with pytest.raises(InputError) as caught:
        catalogue(tmp_path, kind, written)
    assert str(caught.value) == (
        f"items.defaults.odd={written} is no {pq.read_schema(tmp_path / 'items' / 'a.parquet').field('odd').type}, as"
        f" the column is in file a.parquet: write a value of that type"
    )


def catalogue(folder: Path, kind: pa.DataType, default: Any) -> sources.Source:
    """Two files of items, of which the second lacks the column ``odd`` of type ``kind``."""
    for name, table in (("log", pa.table({**LOG, "item_id": [1, 2, 3]})), ("items", None)):
        (folder / name).mkdir()
        if table is not None:
            pq.write_table(table, folder / name / "a.parquet")
    first = (
        pa.nulls(1, kind)
        if not pa.types.is_dictionary(kind)
        else pa.nulls(1, kind.value_type).dictionary_encode().cast(kind)
    )
    pq.write_table(pa.table({"item_id": [1], "odd": first}), folder / "items" / "a.parquet")
    pq.write_table(pa.table({"item_id": [2]}), folder / "items" / "b.parquet")
    items = {"uri": str(folder / "items"), "title_column": None, "display": ["odd"], "defaults": {"odd": default}}
    logs = [{"uri": str(folder / "log")}]
    found = sources.open_inputs(config_file.check({"workspace": "w", "logs": logs, "items": items})).items
    assert found is not None
    return found


def test_the_user_table_has_defaults_too(tmp_path: Path) -> None:
    pq.write_table(pa.table(LOG), tmp_path / "log.parquet")
    (tmp_path / "users").mkdir()
    pq.write_table(pa.table({"user_id": [1], "country": ["pe"]}), tmp_path / "users" / "a.parquet")
    pq.write_table(pa.table({"user_id": [2]}), tmp_path / "users" / "b.parquet")
    users = {"uri": str(tmp_path / "users"), "features": [{"column": "country"}], "defaults": {"country": "lk"}}
    logs = [{"uri": str(tmp_path / "log.parquet")}]
    found = sources.open_inputs(config_file.check({"workspace": "w", "logs": logs, "users": users})).users
    assert found is not None
    assert found.read(["user_id", "country"]).to_pydict() == {"user_id": [1, 2], "country": ["pe", "lk"]}
