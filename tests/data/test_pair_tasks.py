"""The tasks of the pairs stage, run one after another in this process: the same rows however the work is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raycl import journey, ray_runtime
from raycl.config import Config
from raycl.data import ray_pairs, sources
from raycl.data.handoff import Pairs
from raycl.errors import InputError
from raycl.storage import tables
from raycl.storage.versions import Version
from tests.data import whole
from tests.data.builders import in_this_process, packed, write_parquet

NAMED_VAL = {"user": "who", "item": "what", "time": "when", "split": "part_with_val"}
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


def test_quarantine_files_hold_the_bad_rows_with_reason_and_file(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    version, _ = run(settings(tmp_path, "column_held_out"))
    files = [tables.read(version.store, f"quarantine/{name}") for name in version.store.names("quarantine")]
    reasons = [row["reason"] for table in files for row in table.to_pylist()]
    origins = {row["file"] for table in files for row in table.to_pylist()}
    assert {reason: reasons.count(reason) for reason in set(reasons)} == {
        reason: rows for reason, rows in version.manifest.dropped.items() if reason not in ("duplicate", "rare_user")
    }
    assert {"null_user", "time_out_of_range", "unknown_event", "bad_weight", "unknown_split"} <= set(reasons)
    assert origins == {f"{tmp_path}/log/part-000.parquet", f"{tmp_path}/log/part-001.parquet"}


def test_a_split_column_is_read_by_a_split_by_column_only(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    assert "unknown_split" not in run(settings(tmp_path, "leave_last_out"))[0].manifest.dropped


def test_the_work_folder_is_gone_and_every_file_has_its_checksum(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    version, _ = run(settings(tmp_path, "leave_last_out"))
    assert not version.store.exists("work")
    version.manifest.verify(version.store)


def test_users_and_items_have_the_rows_of_their_tables(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    version, _ = run(settings(tmp_path, "leave_last_out"))
    pairs = Pairs.of(version)
    known = pa.array(sorted(f"u{user}" for user in range(30)), pa.large_string())
    for path, _ in pairs.files("test"):
        for row in packed(tables.read(version.store, path)):
            assert row.user_row == known.index(row.user).as_py()
    encoded = pairs.encoded("users")
    assert encoded is not None
    assert encoded.num_rows == 30
    assert pairs.catalogue().column_names == ["item", "title", "price"]
    assert pairs.train_counts().sum() == sum(len(row.items) for row in whole.found(version).rows["train"])


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


class Killed(Exception):
    """Stands for the end of the process."""


def kill_after(monkeypatch: pytest.MonkeyPatch, stage: str, num_done: int) -> None:
    """Let so many tasks of the stage be done, then end."""

    def until_killed(name: str, task: Any, num_tasks: int) -> list[dict[str, Any]]:
        if name != stage:
            return in_this_process(name, task, num_tasks)
        in_this_process(name, task, num_done)
        raise Killed

    monkeypatch.setattr(ray_runtime, "map_tasks", until_killed)


@pytest.mark.parametrize(("stage", "num_done"), [("clean", 0), ("clean", 3), ("build", 0), ("build", 2)])
def test_a_killed_run_goes_on_to_identical_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, num_done: int
) -> None:
    whole.write_log(tmp_path)
    config = settings(tmp_path, "leave_last_out", num_buckets=5)
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
    kept = {path: inode for path, inode in left.items() if path.parent.name in ("train", "val", "test", "quarantine")}
    assert len(kept) >= {("clean", 0): 0, ("clean", 3): 3, ("build", 0): 6, ("build", 2): 12}[stage, num_done]
    assert all(path.stat().st_ino == inode for path, inode in kept.items())


def test_a_version_that_lost_its_manifest_is_made_again_in_its_place(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    config = settings(tmp_path, "leave_last_out")
    first, _ = run(config)
    (Path(first.store.uri) / "manifest.json").unlink()
    (Path(first.store.uri) / "train" / "part-000001.parquet").write_bytes(b"half a file")
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
