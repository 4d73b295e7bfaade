"""The tasks of the pairs stage, run one after another in this process: the same rows however the work is cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file, journey, lineage, ray_runtime, schema
from raycl.config import Config
from raycl.data import clean, pair_plan, pair_tasks, ray_pairs, sequences, sources
from raycl.data.handoff import Pairs
from raycl.data.hashing import bucket_of
from raycl.data.reader import PairStream
from raycl.errors import InputError, RayclError
from raycl.storage import tables
from raycl.storage.versions import Version
from tests.data import whole
from tests.data.builders import in_this_process, packed, write_parquet
from tests.data.reference import PARTS

NAMED_VAL = {"user": "who", "item": "what", "time": "when", "split": "part_with_val"}
EVERYTHING = {"user": "who", "item": "what", "time": "when", "event": "how", "weight": "much", "split": "part"}
NO_TIME = {"user": "who", "item": "what", "time": None, "split": "part"}
KINDS: dict[str, dict[str, Any]] = {
    "leave_last_out": {"pairs": {"min_history": 2}},
    "min_item_events": {"pairs": {"min_item_events": 24, "min_user_events": 4}},
    "robots": {"pairs": {"max_user_events": 20}},
    "no_catalogue": {"pairs": {"min_item_events": 24}, "items": None, "users": None},
    "time": {"pairs": {"split": {"kind": "time", "val_share": 0.2, "test_share": 0.1}}},
    "column_held_out": {"pairs": {"split": {"kind": "column"}}},
    "column_named_val": {"pairs": {"split": {"kind": "column"}}, "columns": NAMED_VAL},
    "others": {"pairs": {"split": {"kind": "column"}, "history": "others"}, "columns": NO_TIME},
    "leave_last_n": {"pairs": {"split": {"kind": "leave_last_n", "num_val": 2, "num_test": 3}}},
    "cold_users": {"pairs": {"split": {"kind": "cold_users", "val_share": 0.3, "test_share": 0.3}}},
    "cold_items": {"pairs": {"split": {"kind": "cold_items", "val_share": 0.2, "test_share": 0.1}}},
    "core": {"pairs": {"min_item_events": 18, "min_user_events": 10, "core_rounds": 9}},
    "core_without_catalogue": {
        "pairs": {"min_item_events": 19, "min_user_events": 10, "core_rounds": 1},
        "items": None,
        "users": None,
    },
    "negatives": {
        "pairs": {"negative_events": ["buy"], "core_rounds": 9, "min_item_events": 7, "min_user_events": 5},
        "event_weights": {"view": 1.0},
        "columns": EVERYTHING | {"context": ["device", "place"]},
    },
    "negatives_by_time": {
        "pairs": {
            "negative_events": ["hover"],
            "negative_below": 1.25,
            "split": {"kind": "time", "val_share": 0.2, "test_share": 0.1},
            "keep_user_events": 9,
        },
        "items": None,
    },
    "negatives_by_column": {
        "pairs": {"negative_events": ["buy"], "split": {"kind": "column"}, "history": "others"},
        "event_weights": {"view": 1.0},
        "columns": NO_TIME | {"event": "how"},
    },
    "strict": {
        "pairs": {
            "max_user_rate": {"events": 5, "window_s": 20},
            "repeat_window_s": 150,
            "keep_user_events": 8,
            "core_rounds": 2,
            "min_item_events": 8,
        }
    },
}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run in a loop; ``test_ray_pairs`` runs them on Ray."""
    whole.without_ray(monkeypatch)


def settings(folder: Path, kind: str, **pairs: Any) -> Config:
    """The config of one of ``KINDS``."""
    chosen = dict(KINDS[kind])
    if columns := chosen.pop("columns", None):
        chosen["logs"] = [{"uri": str(folder / "log"), "columns": columns}]
    return whole.config(folder, chosen.pop("pairs") | pairs, **chosen)


def run(config: Config, *, force: bool = False) -> tuple[Version, bool]:
    return ray_pairs.run(config, journey.workspace(config), force=force)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("num_buckets", "rows_per_fragment", "num_files", "rows_per_group"),
    [(1, 10_000, 1, 10_000), (3, 130, 2, 50), (11, 1, 5, 200)],
)
def test_the_rows_are_those_of_the_whole_log_built_at_once(
    tmp_path: Path, kind: str, num_buckets: int, rows_per_fragment: int, num_files: int, rows_per_group: int
) -> None:
    whole.write_log(tmp_path, num_files=num_files, rows_per_group=rows_per_group)
    config = settings(tmp_path, kind, num_buckets=num_buckets, rows_per_fragment=rows_per_fragment)
    version, worked = run(config)
    assert worked
    assert whole.found(version) == whole.truth(config)
    counts = version.manifest.counts
    assert counts["rows_in"] == 740 == counts["events"] + sum(version.manifest.dropped.values())


def test_every_kind_of_log_has_rows_to_compare(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    for kind in KINDS:
        expected = whole.truth(settings(tmp_path, kind))
        assert min(expected.num_pairs["train"], expected.num_pairs["test"], expected.num_pairs["val"]) > 4, kind
        assert expected.dropped["duplicate"] > 4, kind
        assert (expected.dropped.get("after_held_out", 0) > 4) is kind.startswith(("column", "cold_items")), kind
    for reason in ("robot_user", "repeat", "over_cap", "rare_item"):
        assert whole.truth(settings(tmp_path, "strict")).dropped[reason] > 4, reason


def test_explicit_negatives_are_kept_counted_and_described(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    for kind in ("negatives", "negatives_by_time", "negatives_by_column"):
        version, _ = run(settings(tmp_path, kind))
        tables_of = [tables.read(version.store, f"sequences/{name}") for name in version.store.names("sequences")]
        num_negatives = sum(len(row["negative_items"]) for table in tables_of for row in table.to_pylist())
        num_events = sum(len(row["items"]) for table in tables_of for row in table.to_pylist())
        counts = version.manifest.counts
        assert 20 < counts["negatives"] == num_negatives == counts["events"] - num_events
        found = {field.name: str(field.type) for field in tables_of[0].schema}
        assert found == version.manifest.columns["sequences"] | found
        assert set(found) == set(version.manifest.columns["sequences"])
        assert (version.manifest.dropped.get("held_out_negative", 0) > 4) is (kind == "negatives_by_column")
        report = json.loads(version.store.read(schema.REPORT_FILE))
        assert sum(one["events"] for one in report["types"]["named"]) == report["users"]["total"] == counts["events"]
    assert "negatives" not in run(settings(tmp_path, "leave_last_out"))[0].manifest.counts


def test_validation_is_taken_from_training_where_explicit_negatives_alone_are_named_so(tmp_path: Path) -> None:
    rows = [(user, item, 1 + item, "view", "train") for user in range(9) for item in range(4)]
    rows += [(user, 3, 9, "skip", "val") for user in range(9)]
    names = ("user", "item", "time", "event", "split")
    log = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    write_parquet(log, tmp_path / "log", num_files=3)
    columns = {name: name for name in log.column_names}
    config = whole.config(
        tmp_path,
        {"split": {"kind": "column"}, "negative_events": ["skip"], "rows_per_fragment": 10},
        logs=[{"uri": str(tmp_path / "log"), "columns": columns}],
        items=None,
        users=None,
    )
    manifest = run(config)[0].manifest
    assert (manifest.counts["val_pairs"], manifest.counts["negatives"]) == (9, 0)


def test_a_leak_among_explicit_negatives_fails_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole.write_log(tmp_path)
    config, build = settings(tmp_path, "negatives"), sequences.build

    def leaky(*args: Any, **named: Any) -> sequences.Built:
        built = build(*args, **named)
        assert built.negatives is not None
        return replace(built, negatives=replace(built.negatives, split=built.negatives.split + np.int8(2)))

    monkeypatch.setattr(sequences, "build", leaky)
    with pytest.raises(RayclError, match=r"leakage check negative_of_later_part failed in bucket 0: \d+ cases"):
        run(config)
    assert journey.workspace(config).finished("pairs") == []


def test_events_carry_their_context_from_the_log_into_batches(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    pairs = Pairs.of(run(settings(tmp_path, "negatives"))[0])
    assert pairs.context == ("device", "place")
    assert Pairs.of(run(settings(tmp_path, "leave_last_out"))[0]).context == ()
    files = pairs.files("train")
    stream = PairStream(
        pairs.store, files, pairs.rules, 4, 1_000, 0, with_ages=True, with_negatives=True, context=("place", "device")
    )
    raw = pq.read_table(tmp_path / "log").to_pylist()
    carried = {(row["what"], row["when"], row["device"], row["place"]) for row in raw}
    items = pairs.vocabulary()["item"].to_pylist()
    seen = set()
    for batch in stream.epoch(0):
        columns = batch.item.tolist(), batch.time_ms.tolist(), *(batch.context[name] for name in ("device", "place"))
        for item, time_ms, device, place in zip(*columns, strict=True):
            seen.add((items[item], time_ms // 1_000, device.as_py(), place.as_py()))
        assert batch.negatives is not None
        assert batch.negatives.shape == (4, 5)
        assert batch.history_age_s is not None
        assert (batch.history_age_s > 0).tolist() == (batch.history >= 0).tolist()
    assert seen <= carried
    assert len(seen) > 100
    assert {len({one[place] for one in seen}) for place in (2, 3)} == {3, 8}


@pytest.mark.parametrize(("most", "is_fixed"), [(1, False), (9, True)])
def test_the_manifest_says_whether_the_core_was_reached(tmp_path: Path, most: int, is_fixed: bool) -> None:
    whole.write_log(tmp_path)
    core = run(settings(tmp_path, "core", core_rounds=most))[0].manifest.facts["core"]
    assert core["is_fixed"] is is_fixed
    assert (core["num_dropped"] > 0) is is_fixed  # the first round drops users alone
    assert (core["rounds"] < most) is is_fixed
    assert "core" not in run(settings(tmp_path, "leave_last_out"))[0].manifest.facts


def test_a_leak_fails_the_job_by_name_and_leaves_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole.write_log(tmp_path)
    config, build = settings(tmp_path, "leave_last_out"), sequences.build

    def leaky(*args: Any, **named: Any) -> sequences.Built:
        built = build(*args, **named)
        times_ms = built.packed.times_ms[::-1].copy()
        return replace(built, packed=replace(built.packed, times_ms=times_ms))

    monkeypatch.setattr(sequences, "build", leaky)
    with pytest.raises(
        RayclError, match=r"leakage check train_after_val failed in bucket 0: \d+ cases, one of them of"
    ):
        run(config)
    assert journey.workspace(config).finished("pairs") == []


def test_quarantine_files_hold_the_bad_rows_with_reason_and_file(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    version, _ = run(settings(tmp_path, "column_held_out"))
    files = [tables.read(version.store, f"quarantine/{name}") for name in version.store.names("quarantine")]
    reasons = [row["reason"] for table in files for row in table.to_pylist()]
    origins = {row["file"] for table in files for row in table.to_pylist()}
    assert {reason: reasons.count(reason) for reason in set(reasons)} == {
        reason: rows for reason, rows in version.manifest.dropped.items() if reason in clean.REASONS
    }
    assert {"null_user", "time_out_of_range", "unknown_event", "bad_weight", "unknown_split"} <= set(reasons)
    assert origins == {f"{tmp_path}/log/part-000.parquet", f"{tmp_path}/log/part-001.parquet"}


@pytest.mark.parametrize("rows_per_fragment", [1, 130, 10_000])
def test_a_quarantined_row_is_found_in_its_file_by_its_number(tmp_path: Path, rows_per_fragment: int) -> None:
    whole.write_log(tmp_path)
    version, _ = run(settings(tmp_path, "column_held_out", rows_per_fragment=rows_per_fragment))
    paths = [f"quarantine/{name}" for name in version.store.names("quarantine")]
    bad = [row for path in paths for row in tables.read(version.store, path).to_pylist()]
    assert len(bad) > 50
    for row in bad:
        raw = pq.read_table(row.pop("file")).slice(row.pop("row"), 1).to_pylist()[0]
        assert row.pop("reason") in clean.REASONS
        assert row == {name: raw[name] for name in row}


def test_a_split_column_is_read_by_a_split_by_column_only(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    assert "unknown_split" not in run(settings(tmp_path, "leave_last_out"))[0].manifest.dropped


def test_the_work_folder_is_gone_and_every_file_has_its_checksum(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    version, _ = run(settings(tmp_path, "leave_last_out"))
    assert not version.store.exists("work")
    version.manifest.verify(version.store)


def test_logs_may_name_their_context_in_any_order(tmp_path: Path) -> None:
    table = pa.table({"user_id": [1] * 6, "item_id": range(6), "timestamp": range(1, 7), "a": range(6), "b": ["x"] * 6})
    write_parquet(table.slice(0, 3), tmp_path / "one")
    write_parquet(table.slice(3), tmp_path / "two")
    logs = [
        {"uri": str(tmp_path / name), "columns": {"context": order}}
        for name, order in (("one", ["a", "b"]), ("two", ["b", "a"]))
    ]
    version, _ = run(config_file.check({"workspace": str(tmp_path / "workspace"), "logs": logs}))
    (row,) = tables.read(version.store, schema.sequences_file(0)).to_pylist()
    assert (row["context_a"], row["context_b"]) == ([*range(6)], ["x"] * 6)


def test_users_and_items_have_the_rows_of_their_tables(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    version, _ = run(settings(tmp_path, "leave_last_out"))
    pairs = Pairs.of(version)
    known = pa.array(sorted(f"u{user}" for user in range(30)), pa.large_string())
    for path, _ in pairs.files("test"):
        for row in packed(tables.read(version.store, path), "test"):
            assert row.user_row == known.index(row.user).as_py()
    encoded = pairs.encoded("users")
    assert encoded is not None
    assert encoded.num_rows == 30
    assert pairs.catalogue().column_names == ["item", "title", "price"]
    assert pairs.train_counts().sum() == sum(len(row.items) for row in whole.found(version).rows["train"])


def test_train_targets_are_what_an_epoch_draws(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    for kind in KINDS:
        pairs = Pairs.of(run(settings(tmp_path, kind))[0])
        stream = PairStream(pairs.store, pairs.files("train"), pairs.rules, 1, 1_000, 0)
        drawn = np.concatenate([batch.item for batch in stream.epoch(0)])
        assert np.bincount(drawn, minlength=len(pairs.train_targets())).tolist() == pairs.train_targets().tolist()
        assert (pairs.train_targets() <= pairs.train_counts()).all()


def test_the_features_of_a_user_are_plain_values_that_encode_as_the_table_does(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    table = {
        "id": ["u1", "u2", "u3", ""],
        "user": pa.array([31, 7, None, 1], pa.int16()),
        "likes": [["tea", "rope"], [], None, ["x"]],
        "words": ["ink|tea", "", None, "x"],
        "height": [1.5, float("nan"), None, 2.0],
        "since": pa.array([0, 1, None, 1], pa.date32()),
    }
    write_parquet(pa.table(table), tmp_path / "users")
    kinds = {"user": "categorical", "likes": "multi", "words": "multi", "height": "numeric", "since": "text"}
    features = [{"column": column, "kind": kind} for column, kind in kinds.items()]
    users = {"uri": str(tmp_path / "users"), "id_column": "id", "features": features}
    pairs = Pairs.of(run(whole.config(tmp_path, users=users))[0])
    first = {"user": "31", "likes": ["tea", "rope"], "words": "ink|tea", "height": 1.5, "since": "1970-01-01"}
    found = [pairs.user_features_of(user) for user in ("u1", "u2", "u3", "u4", 5)]
    assert found == [first, {"user": "7", "likes": [], "words": "", "since": "1970-01-02"}, {}, None, None]
    assert json.loads(json.dumps(found)) == found
    encoded = pairs.encoded("users")
    assert encoded is not None
    assert pairs.encoders("users").encode_rows([row for row in found if row is not None]).equals(encoded)


def test_vectors_and_numbers_that_are_of_no_use_are_counted_and_an_id_may_be_a_feature_itself(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    covers = [[1.0, float(item)] for item in range(22)] + [None, [1.0], [1.0, float("nan")]]
    prices = [1.5] * 20 + [None, float("nan"), float("inf"), -float("inf"), 1e300]
    write_parquet(pa.table({"id": list(range(25)), "cover": covers, "price": prices}), tmp_path / "items")
    features = [{"column": "cover", "kind": "vector", "length": 2}, {"column": "id", "kind": "hashed"}]
    features.append({"column": "price", "kind": "numeric"})
    items = {"uri": str(tmp_path / "items"), "id_column": "id", "title_column": None, "features": features}
    users = {"uri": str(tmp_path / "users"), "id_column": "id", "features": [{"column": "id", "kind": "hashed"}]}
    version = run(whole.config(tmp_path, items=items, users=users))[0]
    counts, pairs = version.manifest.counts, Pairs.of(version)
    assert [counts[f"items_cover_{reason}"] for reason in ("null", "wrong_length", "not_finite")] == [1, 1, 1]
    assert {name: count for name, count in counts.items() if "price" in name} == {"items_price_not_finite": 3}
    encoded = pairs.encoded("items")
    assert encoded is not None
    assert encoded["cover"].to_pylist() == [*covers[:22], None, None, None]
    assert pairs.user_features_of("u1") == {"id": "u1"}
    assert pairs.encoders("users").encode_rows([{"id": "u1"}])["id"].to_pylist() != [[1]]


def test_users_of_no_table_or_a_table_without_features_have_no_features(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    users = {"uri": str(tmp_path / "users"), "id_column": "id"}
    bare = Pairs.of(run(whole.config(tmp_path, users=users))[0])
    assert (bare.user_features_of("u1"), bare.user_features_of("nobody")) == ({}, None)
    assert Pairs.of(run(whole.config(tmp_path, users=None))[0]).user_features_of("u1") is None


@pytest.mark.parametrize(
    ("num_rows", "num_buckets"),
    [
        *[(1, 1), (25_000, 1), (25_001, 2), (300_000, 12), (400_000, 16), (32_000_000, 16)],
        *[(32_000_001, 17), (10**9, 500)],
    ],
)
def test_buckets_that_are_not_asked_for_follow_from_the_rows(num_rows: int, num_buckets: int) -> None:
    assert pair_plan.derived_buckets(num_rows) == num_buckets


def test_a_derived_number_of_buckets_is_found_again_and_read_by_later_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.write_log(tmp_path)
    config = settings(tmp_path, "leave_last_out", num_buckets=None)
    monkeypatch.setattr(pair_plan, "_LEAST_ROWS", 100)
    kill_after(monkeypatch, "build", 3)
    with pytest.raises(Killed):
        run(config)
    monkeypatch.setattr(pair_plan, "_LEAST_ROWS", 10)  # what the killed run decided stands
    monkeypatch.setattr(ray_runtime, "map_tasks", in_this_process)
    version, _ = run(config)
    pairs = Pairs.of(version)
    assert (pairs.num_buckets, len(pairs.files("val"))) == (8, 8)
    assert run(config)[0].name == version.name == lineage.pairs(config, journey.workspace(config)).name
    for number, (path, _) in enumerate(pairs.files("train")):
        users = tables.read(pairs.store, path)["user"]
        assert set(bucket_of(users, pairs.num_buckets).tolist()) <= {number}
    assert whole.found(version) == whole.truth(config)


def test_a_user_table_without_features_gives_no_rows(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    users = {"uri": str(tmp_path / "users"), "id_column": "id"}
    version, _ = run(whole.config(tmp_path, users=users))
    assert {row.user_row for row in whole.found(version).rows["train"]} == {-1}


def test_some_users_are_the_first_of_the_part(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    pairs = Pairs.of(run(settings(tmp_path, "leave_last_out", num_buckets=8))[0])
    listed = [user for path, _ in pairs.files("test") for user in tables.read(pairs.store, path)["user"].to_pylist()]
    for count in (0, 1, 5, len(listed), 1_000):
        assert pairs.some_users("test", count) == listed[:count]


def test_the_same_work_is_found_again_and_force_makes_a_second_version(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    config = settings(tmp_path, "leave_last_out")
    first, _ = run(config)
    again, worked = run(config)
    assert (again.name, worked) == (first.name, False)
    second, worked = run(config, force=True)
    assert worked
    assert journey.workspace(config).finished("pairs") == [first.name, second.name]
    assert second.manifest.checksums == first.manifest.checksums
    assert run(config)[0].name == second.name


def test_a_changed_log_or_config_makes_another_version(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    config = settings(tmp_path, "leave_last_out")
    names = {run(config)[0].name, run(settings(tmp_path, "leave_last_out", max_history=9))[0].name}
    write_parquet(
        pa.table({"who": ["u1"], "what": [1], "when": [1], "how": ["view"], "much": [1.0], "part": ["test"]}),
        tmp_path / "log" / "more",
    )
    changed, worked = run(config)
    assert worked
    assert changed.manifest.counts["rows_in"] == 741
    assert len(names | {changed.name}) == 3


def test_pairs_of_an_older_format_are_not_taken_for_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole.write_log(tmp_path)
    config = settings(tmp_path, "leave_last_out")
    monkeypatch.setattr(schema, "PAIRS_FORMAT", 1)
    older, _ = run(config)
    monkeypatch.undo()
    whole.without_ray(monkeypatch)
    newer, worked = run(config)
    assert worked
    assert older.manifest.fingerprint != newer.manifest.fingerprint


class Killed(Exception):
    """Stands for the end of the process."""


def kill_after(monkeypatch: pytest.MonkeyPatch, stage: str, num_done: int) -> None:
    """Let so many tasks of the stage be done, then end."""

    def until_killed(name: str, task: Any, num_tasks: int, finished: Any = None) -> list[dict[str, Any]]:
        if name != stage:
            return in_this_process(name, task, num_tasks, finished)
        in_this_process(name, task, num_done, finished)
        raise Killed

    monkeypatch.setattr(ray_runtime, "map_tasks", until_killed)


@pytest.mark.parametrize(
    ("stage", "num_done"), [("clean", 0), ("clean", 3), ("core", 0), ("core", 2), ("build", 0), ("build", 2)]
)
def test_a_killed_run_goes_on_to_identical_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, num_done: int
) -> None:
    whole.write_log(tmp_path)
    config = settings(tmp_path, "core" if stage == "core" else "leave_last_out", num_buckets=5)
    undisturbed, _ = run(config.model_copy(update={"workspace": str(tmp_path / "undisturbed")}))
    kill_after(monkeypatch, stage, num_done)
    with pytest.raises(Killed):
        run(config)
    workspace = journey.workspace(config)
    (name,) = workspace.store.names("pairs")
    assert workspace.finished("pairs") == []
    left = {path: path.stat().st_ino for path in Path(config.workspace).rglob("*.parquet")}
    monkeypatch.setattr(ray_runtime, "map_tasks", in_this_process)
    version, worked = run(config)
    assert (version.name, worked, workspace.store.names("pairs")) == (name, True, [name])
    assert version.manifest.checksums == undisturbed.manifest.checksums
    assert whole.found(version) == whole.found(undisturbed)
    kept = {path: inode for path, inode in left.items() if path.parent.name in ("sequences", "quarantine")}
    least = {("clean", 0): 0, ("clean", 3): 3, ("build", 0): 6, ("build", 2): 8}
    assert len(kept) >= least.get((stage, num_done), 6)
    assert all(path.stat().st_ino == inode for path, inode in kept.items())


def test_a_version_that_lost_its_manifest_is_made_again_in_its_place(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    config = settings(tmp_path, "leave_last_out")
    first, _ = run(config)
    (Path(first.store.uri) / "manifest.json").unlink()
    (Path(first.store.uri) / "sequences" / "part-000001.parquet").write_bytes(b"half a file")
    second, worked = run(config)
    assert (second.name, worked) == (first.name, True)
    assert second.manifest.checksums == first.manifest.checksums


def test_a_log_that_leaves_no_training_pairs_is_refused_with_the_reasons(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    for pairs, reason in [({"min_user_events": 1_000}, "rare_user"), ({"min_item_events": 1_000}, "rare_item")]:
        with pytest.raises(InputError, match=f"logs: 740 rows leave no training pairs .*'{reason}'"):
            run(whole.config(tmp_path, pairs, items=None))


@pytest.mark.parametrize("split", ["leave_last_out", "time", "column"])
def test_a_log_of_bad_rows_alone_is_refused(tmp_path: Path, split: str) -> None:
    whole.write_log(tmp_path)
    config = whole.config(tmp_path, {"split": {"kind": split}}, event_weights={"fly": 1.0}, items=None)
    with pytest.raises(InputError, match=r"logs: 740 rows leave no training pairs .*'unknown_event'"):
        run(config)


def test_a_catalogue_without_ids_is_refused(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    nobody = {"id": pa.nulls(2, pa.int64()), "name": ["a", "b"], "price": [1.0, 2.0]}
    write_parquet(pa.table(nobody), tmp_path / "items")
    with pytest.raises(InputError, match=r"items\.uri=.* holds no item with an id: check items\.id_column"):
        run(settings(tmp_path, "leave_last_out"))


def test_rows_of_tables_that_are_set_aside_are_counted(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    table = pa.table({"id": ["u1", None, "u1", "u2", ""], "country": ["pe"] * 5})
    write_parquet(table, tmp_path / "users")
    counts = run(settings(tmp_path, "leave_last_out"))[0].manifest.counts
    assert {key: rows for key, rows in counts.items() if key.startswith(("users_", "items_"))} == {
        "items_without_id": 0,
        "items_repeated": 0,
        "users_without_id": 2,
        "users_repeated": 1,
    }


def test_fragments_of_two_logs_are_told_apart(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    config = whole.config(tmp_path)
    logs = [config.logs[0].model_dump(), config.logs[0].model_dump() | {"time_unit": "ms"}]
    both = whole.config(tmp_path, logs=logs)
    assert {fragment.log for fragment in sources.fragments(sources.open_inputs(both).logs, 130)} == {0, 1}
    rows = whole.found(run(both)[0]).rows["train"]
    one = whole.found(run(config)[0]).rows["train"]
    assert np.sum([len(row.items) for row in rows]) > 1.8 * np.sum([len(row.items) for row in one])
    assert {time for row in rows for time in row.times_ms} > {time // 1_000 for row in one for time in row.times_ms}


RECORD = {"users": dict.fromkeys(PARTS, 1), "pairs": dict.fromkeys(PARTS, 2)}


def test_counts_of_tasks_add_up() -> None:
    cleaned = [{"rows": 10, "dropped": {"null_user": 2}}, {"rows": 7, "dropped": {"null_user": 1, "null_item": 1}}]
    built = [RECORD | {"events": 9, "dropped": {"duplicate": 3}}, RECORD | {"events": 1, "dropped": {}}]
    counts, dropped = pair_tasks.add_up(cleaned, built)
    assert dropped == {"null_user": 3, "null_item": 1, "duplicate": 3}
    parts = {f"{part}_{kind}": count for part in PARTS for kind, count in (("users", 2), ("pairs", 4))}
    assert counts == {"rows_in": 17, "events": 10} | parts


def test_a_row_that_no_task_counts_is_our_own_fault() -> None:
    with pytest.raises(AssertionError, match=r"rows were lost: 10 in, 8 kept, {'duplicate': 1} dropped"):
        pair_tasks.add_up([{"rows": 10, "dropped": {}}], [RECORD | {"events": 8, "dropped": {"duplicate": 1}}])


def test_no_training_pairs_are_the_logs_fault() -> None:
    record = RECORD | {"events": 0, "dropped": {"rare_user": 4}, "pairs": dict.fromkeys(PARTS, 0)}
    with pytest.raises(InputError, match=r"^logs: 4 rows leave no training pairs \(dropped: {'rare_user': 4}\)"):
        pair_tasks.add_up([{"rows": 4, "dropped": {}}], [record])


def test_a_log_whose_event_types_are_all_unknown_is_told_by_its_own_types(tmp_path: Path) -> None:
    kinds = ["click"] * 5 + ["cart"] * 2
    table = pa.table({"user_id": [1] * 7, "item_id": range(7), "timestamp": range(1, 8), "event": kinds})
    write_parquet(table, tmp_path / "log")
    plain = {
        "workspace": str(tmp_path / "workspace"),
        "logs": [{"uri": str(tmp_path / "log"), "columns": {"event": "event"}}],
        "event_weights": {"view": 1.0},
    }
    with pytest.raises(InputError, match="event_weights names none of the log's event types, which are click, cart"):
        run(config_file.check(plain))


def test_an_event_type_that_no_row_has_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole.write_log(tmp_path)
    known = whole.config(tmp_path).event_weights
    run(whole.config(tmp_path, event_weights={**known, "skpi": 1.0}))
    assert "no row of the log has event type 'skpi'; types that the config does not name: hover" in caplog.text
