"""What a source consists of, and what is refused before any cluster starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file
from raycl.config import Config
from raycl.data import sources
from raycl.errors import InputError
from tests.data.builders import write_parquet

LOG = {"user_id": [1, 2, 3, 4, 5], "item_id": [11, 12, 13, 14, 15], "timestamp": [1, 2, 3, 4, 5]}


def table(**columns: Any) -> pa.Table:
    """The small log, with some columns replaced; None removes one."""
    return pa.table({name: values for name, values in (LOG | columns).items() if values is not None})


def config(*uris: Path | str, **sections: Any) -> Config:
    return config_file.check({"workspace": "unused", "logs": [{"uri": str(uri)} for uri in uris], **sections})


def opened(*uris: Path | str, **sections: Any) -> sources.Inputs:
    return sources.open_inputs(config(*uris, **sections))


def refusal(*uris: Path | str, **sections: Any) -> str:
    with pytest.raises(InputError) as caught:
        opened(*uris, **sections)
    return str(caught.value)


def test_a_folder_is_its_visible_parquet_files_at_any_depth_in_order(tmp_path: Path) -> None:
    for name in ("b.parquet", "a/x.pq", "_work/x.parquet", ".hidden.parquet", "notes.txt", "a/_tmp.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(table(), tmp_path / name)
    (log,) = opened(tmp_path).logs
    assert [file.path for file in log.files] == ["a/x.pq", "b.parquet"]
    assert log.num_rows == 10


def test_a_single_file_is_a_source(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path, num_files=2)
    (log,) = opened(tmp_path / "part-001.parquet").logs
    assert [file.path for file in log.files] == ["part-001.parquet"]


def test_a_folder_named_like_a_file_is_a_folder(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path / "log.parquet", num_files=2)
    (log,) = opened(tmp_path / "log.parquet").logs
    assert [file.path for file in log.files] == ["log.parquet/part-000.parquet", "log.parquet/part-001.parquet"]
    assert log.read(["user_id"])["user_id"].to_pylist() == LOG["user_id"]


def test_a_pattern_chooses_files(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path / "day=1", num_files=2)
    write_parquet(table(), tmp_path / "day=2", num_files=2)
    (log,) = opened(tmp_path / "day=*" / "part-000.parquet").logs
    assert [file.path for file in log.files] == ["day=1/part-000.parquet", "day=2/part-000.parquet"]


@pytest.mark.parametrize("name", ["absent", "absent.parquet", "*.parquet"])
def test_no_files_are_refused(tmp_path: Path, name: str) -> None:
    told = "holds no Parquet files: check the path; '*' stays within a folder, '**' goes through folders"
    if "*" not in name:
        told = "does not exist, or holds no Parquet files: check the path"
    assert refusal(tmp_path / name) == f"logs.0.uri={tmp_path / name} {told}"


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("events/*.parquet", ["a.parquet"]),
        ("events/*/*.parquet", ["backup/x.parquet"]),
        ("events/**/*.parquet", ["a.parquet", "backup/old/y.parquet", "backup/x.parquet"]),
        ("events/**/old/*", ["backup/old/y.parquet"]),
        ("events/**", ["a.parquet", "backup/old/y.parquet", "backup/x.parquet"]),
        ("events/b*/**/*.parquet", ["backup/old/y.parquet", "backup/x.parquet"]),
        ("events/[a]*.par?uet", ["a.parquet"]),
    ],
)
def test_a_star_stays_within_a_folder_and_two_go_through(tmp_path: Path, pattern: str, chosen: list[str]) -> None:
    for name in ("a.parquet", "backup/x.parquet", "backup/old/y.parquet"):
        (tmp_path / "events" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(), tmp_path / "events" / name)
    (log,) = opened(f"{tmp_path}/{pattern}").logs
    assert [file.path for file in log.files] == chosen


def test_an_unknown_scheme_is_refused() -> None:
    assert "scheme is unknown" in refusal("gopher://log")


def test_a_log_without_rows_is_refused(tmp_path: Path) -> None:
    write_parquet(table().slice(0, 0), tmp_path, num_files=2)
    assert refusal(tmp_path) == f"logs.0.uri={tmp_path} holds no rows in 2 Parquet files: check the path"


def test_a_missing_column_of_any_file_is_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    pq.write_table(table(timestamp=None), tmp_path / "b.parquet")
    assert refusal(tmp_path) == (
        "logs.0.uri: file b.parquet has no column 'timestamp' (it has user_id, item_id): name the right column in"
        " logs.0, or declare what it is there in logs.0.defaults.timestamp"
    )


def test_a_missing_column_of_the_catalogue_is_refused(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path / "log")
    write_parquet(pa.table({"item_id": [11], "title": ["a"]}), tmp_path / "items")
    catalogue = {"uri": str(tmp_path / "items"), "features": [{"column": "colour"}]}
    assert "items.uri: file part-000.parquet has no column 'colour'" in refusal(tmp_path / "log", items=catalogue)


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really PAR1", b"a,b\n1,2\n"])
def test_a_file_that_is_not_parquet_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    write_parquet(table(), tmp_path)
    (tmp_path / "part-007.parquet").write_bytes(content)
    message = refusal(tmp_path)
    assert message.startswith(f"logs.0.uri: file {tmp_path}/part-007.parquet is not readable Parquet (")
    assert message.endswith("): replace it or leave it out")


def test_a_file_with_a_damaged_page_is_refused_when_its_fragment_is_read(tmp_path: Path) -> None:
    write_parquet(table(user_id=list(range(5_000)), item_id=[1] * 5_000, timestamp=[1] * 5_000), tmp_path)
    path = tmp_path / "part-000.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    (fragment,) = sources.fragments(opened(tmp_path).logs, 10_000)
    with pytest.raises(InputError, match=r"logs\.0\.uri: file .*part-000\.parquet is damaged"):
        fragment.read(["user_id"])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3, 4, 5], pa.int64()),
        ([1.0, 2.0, 3.0, 4.0, 5.0], pa.int64()),
        (pa.array([1, 2, 3, 4, 5], pa.uint16()), pa.int64()),
        (list("abcde"), pa.large_string()),
        (pa.array(list("abcde")).dictionary_encode(), pa.large_string()),
    ],
)
def test_ids_are_integers_or_strings(tmp_path: Path, values: Any, kind: pa.DataType) -> None:
    write_parquet(table(user_id=values), tmp_path)
    found = opened(tmp_path)
    assert (found.user_type, found.item_type) == (kind, pa.int64())


def test_ids_of_another_type_are_refused(tmp_path: Path) -> None:
    write_parquet(table(item_id=[True] * 5), tmp_path)
    assert refusal(tmp_path) == (
        "logs.0.columns.item=item_id is of type bool in file part-000.parquet: ids are integers or strings; convert"
        " the column"
    )


def test_ids_of_another_kind_in_a_later_file_are_refused_with_both_files(tmp_path: Path) -> None:
    pq.write_table(table(user_id=pa.nulls(5)), tmp_path / "a.parquet")
    pq.write_table(table(user_id=[1.0] * 5), tmp_path / "b.parquet")
    pq.write_table(table(user_id=list("abcde")), tmp_path / "c.parquet")
    assert refusal(tmp_path) == (
        "logs.0.columns.user=user_id is of type double in file b.parquet and string in file c.parquet: give it one type"
        " in all files"
    )


def test_ids_of_nulls_alone_take_the_kind_of_the_other_tables(tmp_path: Path) -> None:
    write_parquet(table(user_id=pa.nulls(5)), tmp_path / "a")
    write_parquet(table(), tmp_path / "b")
    assert opened(tmp_path / "a", tmp_path / "b").user_type == pa.int64()
    assert opened(tmp_path / "a").user_type == pa.large_string()


def test_a_wrong_type_of_any_file_is_refused_by_field_and_file(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    pq.write_table(table(timestamp=["2024-01-01"] * 5), tmp_path / "b.parquet")
    assert refusal(tmp_path) == (
        "logs.0.columns.time=timestamp is of type string in file b.parquet: use a timestamp, a date, an integer or a"
        " float"
    )


def test_a_time_may_be_of_another_type_in_each_file(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    pq.write_table(table(timestamp=pa.array([1] * 5, pa.timestamp("s"))), tmp_path / "b.parquet")
    assert opened(tmp_path).logs[0].num_rows == 10


@pytest.mark.parametrize(
    ("path", "section"),
    [
        ("items.title_column", {"title_column": "odd"}),
        ("items.features.0.column", {"title_column": None, "features": [{"column": "odd"}]}),
        ("items.features.0.column", {"title_column": None, "features": [{"column": "odd", "kind": "text"}]}),
        ("items.features.0.column", {"title_column": None, "features": [{"column": "odd", "kind": "numeric"}]}),
    ],
)
def test_a_wrong_type_in_the_catalogue_is_refused_by_its_field(
    tmp_path: Path, path: str, section: dict[str, Any]
) -> None:
    write_parquet(table(), tmp_path / "log")
    write_parquet(pa.table({"item_id": [1], "odd": [["a"]]}), tmp_path / "items")
    message = refusal(tmp_path / "log", items={"uri": str(tmp_path / "items"), **section})
    assert message.startswith(f"{path}=odd is of type list<")
    assert "in file part-000.parquet: use " in message


def test_files_of_a_catalogue_whose_types_make_no_table_are_refused(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path / "log")
    (tmp_path / "items").mkdir()
    pq.write_table(pa.table({"item_id": [1], "year": [1999]}), tmp_path / "items" / "a.parquet")
    pq.write_table(pa.table({"item_id": [2], "year": ["1999"]}), tmp_path / "items" / "b.parquet")
    catalogue = {"uri": str(tmp_path / "items"), "title_column": None, "display": ["year"]}
    assert refusal(tmp_path / "log", items=catalogue) == (
        "items.display.0=year is of type int64 in file a.parquet and string in file b.parquet: give it one type in all"
        " files"
    )


def test_text_of_any_kind_makes_one_table(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path / "log")
    (tmp_path / "items").mkdir()
    for number, kind in enumerate([pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), "str")]):
        colour = pa.array(["red"]).cast(kind)
        pq.write_table(pa.table({"item_id": [number], "c": colour}), tmp_path / "items" / f"{number}.parquet")
    catalogue = {"uri": str(tmp_path / "items"), "title_column": "c"}
    items = opened(tmp_path / "log", items=catalogue).items
    assert items is not None
    assert items.read(["item_id", "c"]).to_pydict() == {"item_id": [0, 1, 2, 3], "c": ["red"] * 4}


def test_values_that_make_no_table_are_refused(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path / "log")
    (tmp_path / "items").mkdir()
    pq.write_table(pa.table({"item_id": [2**62 + 1]}), tmp_path / "items" / "a.parquet")
    pq.write_table(pa.table({"item_id": [0.5]}), tmp_path / "items" / "b.parquet")
    items = opened(tmp_path / "log", items={"uri": str(tmp_path / "items"), "title_column": None}).items
    assert items is not None
    with pytest.raises(InputError, match=r"^items\.uri: its files do not make one table \(.*\): convert them$"):
        items.read(["item_id"])


def test_strings_in_one_log_and_integers_in_another_are_refused(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path / "a")
    write_parquet(table(user_id=list("abcde")), tmp_path / "b")
    message = refusal(tmp_path / "a", tmp_path / "b")
    assert message.startswith("logs.0.columns.user=user_id (int64) and logs.1.columns.user=user_id (string) do not")


def test_a_catalogue_with_ids_of_another_type_is_refused(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path / "log")
    write_parquet(pa.table({"item_id": ["11"]}), tmp_path / "items")
    catalogue = {"uri": str(tmp_path / "items"), "title_column": None}
    message = refusal(tmp_path / "log", items=catalogue)
    assert message.startswith("logs.0.columns.item=item_id (int64) and items.id_column=item_id (string) do not compare")


def test_only_the_columns_that_are_mapped_are_read() -> None:
    (log,) = config("a").logs
    assert sources.log_columns(log) == ["user_id", "item_id", "timestamp"]
    columns = log.columns.model_copy(update={"time": None, "weight": "w", "event": "w"})
    assert sources.log_columns(log.model_copy(update={"columns": columns})) == ["user_id", "item_id", "w"]


def carrying(*uris: Path, **more: Any) -> list[dict[str, Any]]:
    """Logs whose events carry their device."""
    return [{"uri": str(uri), "columns": {"context": "device"}, **more} for uri in uris]


def test_columns_that_events_carry_are_read_and_have_one_type_in_all_logs(tmp_path: Path) -> None:
    columns: list[Any] = [pa.nulls(5), pa.array(range(5), pa.int8()), pa.array(range(5), pa.int64())]
    for name, column in zip("abc", columns, strict=True):
        write_parquet(table(device=column), tmp_path / name)
    found = opened(logs=carrying(*(tmp_path / name for name in "abc")))
    assert found.context == {"device": pa.int64()}
    assert opened(logs=carrying(tmp_path / "a")).context == {"device": pa.large_string()}
    assert opened(tmp_path / "a").context == {}
    log = config(logs=carrying(tmp_path / "a")).logs[0]
    assert sources.log_columns(log) == ["user_id", "item_id", "timestamp", "device"]


def test_columns_that_events_carry_are_refused_where_they_are_absent_odd_or_not_alike(tmp_path: Path) -> None:
    columns: list[Any] = [["x"] * 5, list(range(5)), [[1]] * 5, None]
    for name, column in zip("abcd", columns, strict=True):
        write_parquet(table(device=column), tmp_path / name)
    assert refusal(logs=carrying(tmp_path / "a", tmp_path / "b")) == (
        "logs.0.columns.context=device (string) and logs.1.columns.context=device (int64) do not make one column: give"
        " both the same type"
    )
    message = refusal(logs=carrying(tmp_path / "c"))
    assert message.startswith("logs.0.columns.context=device is of type list<")
    assert message.endswith("use whole numbers, floats, truth values or strings")
    assert "part-000.parquet has no column 'device'" in refusal(logs=carrying(tmp_path / "d"))
    write_parquet(table(device=[0.5] * 5), tmp_path / "b" / "more")
    message = refusal(logs=carrying(tmp_path / "b"))
    assert message.startswith("logs.0.columns.context=device is of type ")
    assert message.endswith("give it one type in all files")
    assert opened(logs=carrying(tmp_path / "d", defaults={"device": None})).context == {"device": pa.large_string()}


@pytest.mark.parametrize("max_rows", [1, 3, 4, 10, 1_000])
def test_fragments_hold_every_row_exactly_once_in_order(tmp_path: Path, max_rows: int) -> None:
    rows = list(range(41))
    whole = pa.table({"user_id": rows, "item_id": rows, "timestamp": rows})
    write_parquet(whole.slice(0, 30), tmp_path / "a", num_files=4, rows_per_group=3)
    write_parquet(whole.slice(30), tmp_path / "b", num_files=2, rows_per_group=4)
    found = sources.fragments(opened(tmp_path / "a", tmp_path / "b").logs, max_rows)
    tables = [fragment.read(["user_id"]) for fragment in found]
    assert pa.concat_tables(tables)["user_id"].to_pylist() == rows
    assert [fragment.num_rows for fragment in found] == [table.num_rows for table in tables]
    assert all(fragment.num_rows <= max_rows or len(fragment.groups) == 1 for fragment in found)
    assert {fragment.log for fragment in found} == {0, 1}


def test_a_file_without_rows_makes_no_fragment(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path)
    pq.write_table(table().slice(0, 0), tmp_path / "part-001.parquet")
    assert len(sources.fragments(opened(tmp_path).logs, 100)) == 1


def test_the_identity_changes_with_the_files(tmp_path: Path) -> None:
    write_parquet(table(), tmp_path)
    before = opened(tmp_path).logs[0].identity()
    assert opened(tmp_path).logs[0].identity() == before
    pq.write_table(table(), tmp_path / "part-001.parquet")
    assert opened(tmp_path).logs[0].identity() != before
