"""The two files of the data report in a finished version: their numbers are those of a pass over the log."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import journey, schema
from raycl.config import Config
from raycl.data import pair_tasks, ray_pairs, report_page
from raycl.data.handoff import Pairs
from raycl.data.reader import PairStream
from raycl.data.report import Report
from raycl.storage.versions import Version
from tests.data import whole
from tests.data.builders import write_parquet
from tests.data.reference import PARTS

KINDS: dict[str, dict[str, Any]] = {
    "leave_last_out": {"min_history": 2},
    "time": {"split": {"kind": "time", "val_share": 0.2, "test_share": 0.1}},
    "cold_users": {"split": {"kind": "cold_users", "val_share": 0.2, "test_share": 0.2}},
    "cold_items": {"split": {"kind": "cold_items", "val_share": 0.2, "test_share": 0.2}},
    "column": {"split": {"kind": "column"}, "repeat_window_s": 60},
}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    whole.without_ray(monkeypatch)


def run(config: Config, *, force: bool = False) -> Version:
    return ray_pairs.run(config, journey.workspace(config), force=force)[0]


def report_of(version: Version) -> Report:
    return Report.model_validate_json(version.store.read(schema.REPORT_FILE))


def raw_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "log").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_are_those_of_a_pass_over_the_log(tmp_path: Path, kind: str) -> None:
    whole.write_log(tmp_path)
    version = run(whole.config(tmp_path, KINDS[kind]))
    found, truth, raw = report_of(version), whole.found(version), raw_rows(tmp_path)

    assert (found.rows, found.events) == (len(raw), version.manifest.counts["events"])
    assert {one.reason: one.rows for one in found.dropped} == version.manifest.dropped
    days = Counter(np.datetime64(row["when"], "s").astype("datetime64[D]").item() for row in raw if row["when"])
    assert {day.day: day.rows for day in found.days.counts} == days
    assert found.days.undated_rows == len(raw) - days.total() > 0
    types = Counter(row["how"] for row in raw)
    assert {one.type: one.rows for one in found.types.named} == {name: types[name] for name in ("view", "buy")}
    assert [(one.type, one.rows) for one in found.types.unknown] == [("hover", types["hover"])]
    names = {"user": "who", "item": "what", "time": "when", "event": "how", "weight": "much", "split": "part"}
    for nulls in found.nulls:
        assert (nulls.nulls, nulls.rows) == (sum(row[names[nulls.column]] is None for row in raw), len(raw))

    users: Counter[Any] = Counter()
    for part, rows in truth.rows.items():
        for row in rows:
            own = row.first_target if part == "train" or kind != "cold_users" else 0
            users[row.user] += len(row.items) - own
    assert (found.users.number, found.users.total, found.users.most) == (len(users), found.events, max(users.values()))
    assert sum(day.events for day in found.days.counts) == found.events == sum(one.events for one in found.types.named)
    counts = [item["log_count"] for item in truth.vocabulary]
    assert (found.items.number, found.items.total, found.items.most) == (len(counts), sum(counts), max(counts))


@pytest.mark.parametrize("kind", KINDS)
def test_parts_and_cold_items_are_those_of_the_files(tmp_path: Path, kind: str) -> None:
    whole.write_log(tmp_path)
    version = run(whole.config(tmp_path, KINDS[kind]))
    found, pairs = report_of(version), Pairs.of(version)
    unseen = pairs.train_counts() == 0
    cold = found.cold
    assert (cold.items, cold.cold_items) == (len(unseen), unseen.sum())
    for part, one in zip(PARTS, found.parts, strict=True):
        assert (one.users, one.pairs) == tuple(version.manifest.counts[f"{part}_{what}"] for what in ("users", "pairs"))
        assert one.history.number == one.pairs > 0
    stream = PairStream(
        pairs.store, pairs.files("train"), pairs.rules.model_copy(update={"max_history": 999}), 1, 10**6, 0
    )
    lengths = [int((batch.history >= 0).sum()) for batch in stream.epoch(0)]
    assert (found.parts[0].history.total, found.parts[0].history.most) == (sum(lengths), max(lengths))
    if kind == "cold_items":
        assert (cold.val_cold_share, cold.test_cold_share) == (1.0, 1.0)
        assert (cold.val_targets, cold.test_targets) == (found.parts[1].pairs, found.parts[2].pairs)


def test_both_files_are_listed_in_the_manifest_and_nothing_is_left_of_their_making(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    version = run(whole.config(tmp_path))
    assert {schema.REPORT_FILE, schema.REPORT_PAGE} <= version.manifest.checksums.keys()
    version.verified(schema.REPORT_FILE, schema.REPORT_PAGE)
    assert not version.store.exists("work")
    assert version.store.read(schema.REPORT_PAGE).decode() == report_page.render(report_of(version))


def test_the_report_does_not_change_with_the_number_of_tasks(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    reports = []
    for number, (rows_per_fragment, num_buckets) in enumerate([(10_000, 1), (50, 3), (1, 11)]):
        settings = {"rows_per_fragment": rows_per_fragment, "num_buckets": num_buckets}
        config = whole.config(tmp_path, settings, workspace=str(tmp_path / f"workspace-{number}"))
        reports.append(report_of(run(config)).model_copy(update={"fingerprint": ""}))
    assert reports[0] == reports[1] == reports[2]


def test_the_first_version_is_compared_with_none_and_the_next_with_it(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    config = whole.config(tmp_path)
    first = run(config)
    assert report_of(first).drift.against is None
    assert report_of(first).drift.reason == "there is no finished version of other work in this workspace"
    more = {"who": ["u1"], "what": [24], "when": [1_700_000_000], "how": ["buy"], "much": [1.0], "part": ["train"]}
    write_parquet(pa.table(more), tmp_path / "log" / "more")
    second = run(config)
    drift = report_of(second).drift
    assert (drift.against, drift.config) == (first.name, ())
    sizes = {one.measure: (one.before, one.now) for one in drift.sizes}
    assert sizes["rows"] == (740, 741)
    assert all(0 < distance < 0.1 for name, distance in drift.distances if name in ("items", "event types"))
    assert f"Compared with {first.name}" in second.store.read(schema.REPORT_PAGE).decode()


def test_other_settings_are_named_and_are_the_only_drift_of_the_same_log(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    first = run(whole.config(tmp_path))
    drift = report_of(run(whole.config(tmp_path, {"max_history": 7}))).drift
    assert (drift.against, drift.config) == (first.name, ("pairs.max_history",))
    assert {distance for _, distance in drift.distances} == {0.0}
    assert all(one.before == one.now for one in (*drift.sizes, *drift.types, *drift.nulls, *drift.dropped))


def test_the_same_work_made_again_has_the_same_report(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    run(whole.config(tmp_path, {"max_history": 7}))
    first, second = run(whole.config(tmp_path)), run(whole.config(tmp_path), force=True)
    assert first.name != second.name
    assert first.manifest.checksums == second.manifest.checksums


@pytest.mark.parametrize("content", [None, b"", b"{}", json.dumps({"format": 2}).encode()])
def test_a_version_whose_report_cannot_be_read_stops_nothing(tmp_path: Path, content: bytes | None) -> None:
    whole.write_log(tmp_path)
    first = run(whole.config(tmp_path))
    path = Path(first.store.uri) / schema.REPORT_FILE
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    drift = report_of(run(whole.config(tmp_path, {"max_history": 7}))).drift
    assert (drift.against, drift.reason) == (None, f"{first.name} has no report that this raycl can read")


def test_a_run_killed_before_its_end_makes_the_same_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole.write_log(tmp_path)
    undisturbed = run(whole.config(tmp_path, workspace=str(tmp_path / "undisturbed")))
    finish = pair_tasks.finish

    def killed(*_: Any) -> Version:
        raise KeyboardInterrupt

    monkeypatch.setattr(pair_tasks, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        run(whole.config(tmp_path))
    monkeypatch.setattr(pair_tasks, "finish", finish)
    assert report_of(run(whole.config(tmp_path))) == report_of(undisturbed)
