"""Delta and Iceberg tables: the files of their current state, read on as any other Parquet."""

from __future__ import annotations

import base64
import builtins
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file, journey
from raycl.config import LogSource
from raycl.data import lakes, ray_pairs, sources
from raycl.errors import ConfigError, InputError
from raycl.storage.store import Store
from tests.data import whole
from tests.data.lake_tables import write_iceberg

DAY_S = 86_400
FIRST_DAY = 20_000
COLUMNS = ["user_id", "item_id", "timestamp"]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    whole.without_ray(monkeypatch)


def day(number: int) -> pa.Table:
    """200 events of one day."""
    generator = np.random.default_rng(number)
    seconds = (FIRST_DAY + number) * DAY_S + np.sort(generator.choice(DAY_S, 200, replace=False))
    return pa.table(
        {
            "user_id": generator.integers(0, 20, 200),
            "item_id": pa.array([f"i{item}" for item in generator.integers(0, 20, 200)]),
            "timestamp": pa.array(seconds).cast(pa.timestamp("s")).cast(pa.timestamp("us")),
            "dt": pa.array([FIRST_DAY + number] * 200, pa.int32()).cast(pa.date32()),
        }
    )


def pairs(folder: Path, uri: str, **log: Any) -> whole.Truth:
    config = whole.config(folder, {}, logs=[{"uri": uri, **log}], items=None, users=None)
    return whole.found(ray_pairs.run(config, journey.workspace(config))[0])


def plainly(folder: Path, *parts: pa.Table, **log: Any) -> whole.Truth:
    """The pairs of these rows as one Parquet file."""
    pq.write_table(pa.concat_tables(parts), folder / "plain.parquet")
    return pairs(folder, str(folder / "plain.parquet"), **log)


def log(uri: str, kind: str, **settings: Any) -> LogSource:
    return LogSource.model_validate({"uri": uri, "format": kind, **settings})


def refusal(source: LogSource, columns: list[str] = COLUMNS) -> str:
    with pytest.raises(InputError) as caught:
        lakes.list_files("logs.0", source, columns)
    return str(caught.value)


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place on disk or on S3."""
    if request.param == "local":
        return str(tmp_path / "lake")
    store: Store = request.getfixturevalue("s3_store")
    return f"{store.uri}/lake"


def write_delta(root: str, *parts: pa.Table, **options: Any) -> None:
    deltalake = pytest.importorskip("deltalake")
    for part in parts:
        http = {"allow_http": "true", "conditional_put": "etag"} if root.startswith("s3://") else None
        deltalake.write_deltalake(root, part, mode="append", storage_options=http, **options)


def test_a_delta_table_is_what_its_current_version_holds(tmp_path: Path, root: str) -> None:
    write_delta(root, day(0), day(1), partition_by=["dt"])
    both = pairs(tmp_path, root, format="delta")
    assert both == plainly(tmp_path, day(0), day(1))
    assert pairs(tmp_path, root, format="delta", version=0) == plainly(tmp_path, day(0))
    Store(root).write("dt=2024-10-04/left-over.parquet", b"of a writer that was killed")
    assert pairs(tmp_path, root, format="delta") == both


def test_delta_partitions_are_columns_of_the_declared_type_and_prune(tmp_path: Path, root: str) -> None:
    parts = [part.append_column("kind", pa.array(["a b/c%", "7"] * 100)) for part in (day(0), day(1), day(2))]
    write_delta(root, *parts, partition_by=["dt", "kind"])
    columns = {"event": "kind"}
    weights = {"a b/c%": 1.0, "7": 2.0}
    settings = {
        "columns": columns,
        "format": "delta",
        "date_partition": "dt",
        "since": "2024-10-05",
        "until": "2024-10-06",
    }
    config = whole.config(tmp_path, logs=[{"uri": root, **settings}], items=None, users=None, event_weights=weights)
    (found,) = sources.open_inputs(config).logs
    assert found.types["kind"] == pa.string()
    assert found.num_rows == 200
    plain = [{"uri": str(tmp_path / "plain.parquet"), "columns": columns}]
    pq.write_table(parts[1], tmp_path / "plain.parquet")
    same = whole.config(tmp_path, logs=plain, items=None, users=None, event_weights=weights)
    versions = [ray_pairs.run(one, journey.workspace(one))[0] for one in (config, same)]
    assert whole.found(versions[0]) == whole.found(versions[1])


def test_what_is_no_delta_table_is_refused(tmp_path: Path) -> None:
    write_delta(str(tmp_path / "lake"), day(0))
    assert refusal(log(str(tmp_path / "none"), "delta")).endswith("): check the path and version")
    assert f"logs.0.uri={tmp_path}/lake at logs.0.version=9 is no readable delta table (" in refusal(
        log(f"{tmp_path}/lake", "delta", version=9)
    )
    write_delta(str(tmp_path / "empty"), day(0).slice(0, 0))
    assert "its delta table has no files" in refusal(log(f"{tmp_path}/empty", "delta"))


def committed(root: Path, *actions: dict[str, Any]) -> LogSource:
    """The table after one more commit by hand."""
    lines = "\n".join(map(json.dumps, actions))
    (root / "_delta_log" / f"{len(list((root / '_delta_log').iterdir())):020}.json").write_text(lines)
    return log(str(root), "delta")


def protocol(*features: str) -> dict[str, Any]:
    needed = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    return {"protocol": needed}


def first_actions(root: Path) -> dict[str, dict[str, Any]]:
    lines = (root / "_delta_log" / f"{0:020}.json").read_text().splitlines()
    return {name: action for line in lines for name, action in json.loads(line).items()}


Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
B85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


def test_deletion_vectors_are_refused_and_the_mere_feature_is_not(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    write_delta(str(root), day(0))
    source = committed(root, protocol("deletionVectors", "timestampNtz"))
    assert len(lakes.list_files("logs.0", source, COLUMNS).files) == 1
    # rows 0 and 3 as a portable roaring bitmap: one array container
    bitmap = struct.pack("<II", 12346, 1)
    bitmap += struct.pack("<HH", 0, 1) + struct.pack("<I", 16) + struct.pack("<HH", 0, 3)
    vector = struct.pack("<iqi", 1681511377, 1, 0) + bitmap
    vector += b"\0" * (-len(vector) % 4)
    inline = base64.b85encode(vector).decode().translate(str.maketrans(B85, Z85))
    descriptor = {"storageType": "i", "pathOrInlineDv": inline, "sizeInBytes": len(vector), "cardinality": 2}
    add = first_actions(root)["add"]
    remove = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}
    source = committed(root, {"remove": remove}, {"add": add | {"deletionVector": descriptor}})
    assert refusal(source) == (
        f"logs.0.uri={root} has deletion vectors, which raycl's delta reader does not know: run REORG TABLE ... APPLY"
        f" (PURGE) on it, or write it out as Parquet"
    )


def test_column_mapping_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    write_delta(str(root), day(0))
    metadata = first_actions(root)["metaData"]
    configuration = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "4"}
    schema = json.loads(metadata["schemaString"])
    for number, field in enumerate(schema["fields"], 1):
        field["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": f"col-{number}"}
    mapped = metadata | {"configuration": configuration, "schemaString": json.dumps(schema)}
    source = committed(root, protocol("columnMapping", "timestampNtz"), {"metaData": mapped})
    assert refusal(source).startswith(f"logs.0.uri={root} maps its columns to other names, which raycl's delta reader")


def test_an_iceberg_table_is_what_its_current_snapshot_holds(tmp_path: Path, root: str) -> None:
    pytest.importorskip("pyiceberg")
    table = write_iceberg(root, [day(0), day(1)])
    both = pairs(tmp_path, table.metadata_location, format="iceberg")
    assert both == plainly(tmp_path, day(0), day(1))
    first = table.metadata.snapshots[0].snapshot_id
    assert pairs(tmp_path, table.metadata_location, format="iceberg", version=first) == plainly(tmp_path, day(0))


def test_iceberg_partitions_prune(tmp_path: Path, root: str) -> None:
    pytest.importorskip("pyiceberg")
    table = write_iceberg(root, [day(0), day(1), day(2)], partitioned_by="dt")
    dates = {"date_partition": "dt", "since": "2024-10-05", "until": "2024-10-06"}
    source = log(table.metadata_location, "iceberg", **dates)
    settings = config_file.check({"workspace": "w", "logs": [source.model_dump()]})
    (found,) = sources.open_inputs(settings).logs
    assert found.num_rows == 200
    assert pairs(tmp_path, table.metadata_location, format="iceberg", **dates) == plainly(tmp_path, day(1))


def test_a_column_that_was_renamed_or_taken_anew_is_refused_where_it_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pyiceberg")
    table = write_iceberg(str(tmp_path / "lake"), [day(0)])
    with table.update_schema() as update:
        update.rename_column("item_id", "thing")
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("dt")
    with table.update_schema() as update:
        update.add_column("dt", table.schema().find_type("timestamp"))
    source = log(table.metadata_location, "iceberg")
    for column in ("thing", "item_id", "dt"):
        assert f" gave column '{column}' another name or meaning in time, which raycl's iceberg" in refusal(
            source, [column]
        )
    assert len(lakes.list_files("logs.0", source, ["user_id", "timestamp"]).files) == 1


def test_delete_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyiceberg")
    from pyiceberg.table import DataScan, FileScanTask

    table = write_iceberg(str(tmp_path / "lake"), [day(0)])
    (task,) = table.scan().plan_files()
    deleted = FileScanTask(task.file, delete_files={task.file})
    monkeypatch.setattr(DataScan, "plan_files", lambda _: [deleted])
    assert " has delete files for " in refusal(log(table.metadata_location, "iceberg"))


def test_what_is_no_iceberg_table_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyiceberg")
    (tmp_path / "x.metadata.json").write_text("{}")
    for uri in (tmp_path, tmp_path / "none.metadata.json", tmp_path / "x.metadata.json"):
        message = refusal(log(str(uri), "iceberg"))
        assert message.startswith(f"logs.0.uri={uri} is no readable iceberg table (")
        assert message.endswith("): check the path and version")
        assert "\n" not in message
    empty = write_iceberg(str(tmp_path / "empty"), [day(0).slice(0, 0)])
    assert "its iceberg table has no files" in refusal(log(empty.metadata_location, "iceberg"))


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("/a/b", "/a/b"),
        ("file:///a/b/", "/a/b"),
        ("file:/a/b", "/a/b"),
        ("s3a://bucket/a/", "s3://bucket/a"),
        ("s3n://bucket/a", "s3://bucket/a"),
        ("s3://bucket/a", "s3://bucket/a"),
    ],
)
def test_a_location_is_one_place_however_it_is_spelled(written: str, plain: str) -> None:
    assert lakes._plain_uri(written) == plain


@pytest.mark.parametrize(("kind", "package"), [("delta", "deltalake"), ("iceberg", "pyiceberg")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, kind: str, package: str) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError) as caught:
        lakes.list_files("items", log("x", kind), [])
    assert (
        str(caught.value) == f"items.format={kind} needs a package that is not installed: pip install 'raycl[{kind}]'"
    )
