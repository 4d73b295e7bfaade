"""A log that has grown or shrunk: the same output as that of a run that builds all, from a part of the work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raycl import config_file, journey, ray_runtime
from raycl.config import Config
from raycl.data import kept_events, sequences
from raycl.storage.versions import Version
from tests.data.builders import in_this_process, write_parquet

DAY_S = 86_400
NOW_S = 1_790_000_000

RULES: dict[str, dict[str, Any]] = {
    "leave_last_out": {},
    "strict": {
        "min_user_events": 5,
        "min_item_events": 8,
        "max_user_events": 60,
        "repeat_window_s": 4_000,
        "keep_user_events": 9,
    },
    "time": {"split": {"kind": "time"}},
    "time_and_cap": {"split": {"kind": "time"}, "keep_user_events": 9},
    "cold_users": {"split": {"kind": "cold_users", "val_share": 0.2, "test_share": 0.2}},
    "cold_items": {"split": {"kind": "cold_items", "val_share": 0.1, "test_share": 0.1}},
    "column": {"split": {"kind": "column"}},
    "core": {"min_user_events": 4, "min_item_events": 9, "core_rounds": 3},
    "hashed": {"min_item_events": 8, "rare_items": "hash", "rare_buckets": 5},
}


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_runtime, "connect", lambda _: None)
    monkeypatch.setattr(ray_runtime, "map_tasks", in_this_process)
    monkeypatch.setattr("raycl.data.report_page.render", lambda _: "")  # it takes most of a run's time here


def write_day(folder: Path, day: int, num_rows: int = 250, num_files: int = 2) -> None:
    """Some users and items come with each day and some stay away; a few rows are bad."""
    generator = np.random.default_rng(day)
    users, items = (generator.integers(3 * day, 3 * day + size, num_rows) for size in (40, 30))
    table = pa.table(
        {
            "user_id": pa.array([None if user % 50 == 49 else f"u{user}" for user in users]),
            "item_id": items,
            "timestamp": NOW_S + day * DAY_S + generator.integers(0, DAY_S // 8, num_rows) * 8,
            "kind": np.where(generator.random(num_rows) < 0.02, "hover", np.where(items % 2, "view", "buy")),
            "opinion": np.where((users + items) % 5 == 0, "skip", "view"),
            "device": [None if item % 9 == 0 else f"d{item % 3}" for item in items],
            "part": np.where((users + items) % 7 == 0, "test", "train"),
        }
    )
    write_parquet(table, folder / f"log/dt={day}", num_files=num_files)


def config(folder: Path, workspace: str, rules: dict[str, Any], **sections: Any) -> Config:
    columns = {"event": "kind", "split": "part"}
    plain = {
        "workspace": str(folder / workspace),
        "logs": [{"uri": str(folder / "log"), "columns": columns}],
        "event_weights": {"view": 1.0, "buy": 2.0},
        "pairs": {"num_buckets": 3} | rules,
    }
    return config_file.check(plain | sections)


def both(folder: Path, rules: dict[str, Any], **sections: Any) -> tuple[Version, Version]:
    """The version of a run that goes on from the one before it, and of one that never does."""
    grown = config(folder, "grown", rules | {"incremental": True}, **sections)
    whole = config(folder, "whole", rules, **sections)
    return journey.pairs(grown).version, journey.pairs(whole).version


def assert_same(grown: Version, whole: Version) -> None:
    """Every file of the hand-off is the same in all its bytes, and so are all counts."""
    files = [
        {path: sums for path, sums in one.manifest.checksums.items() if path.startswith(("sequences/", "vocab/"))}
        for one in (grown, whole)
    ]
    assert files[0] == files[1]
    assert (grown.manifest.counts, grown.manifest.dropped) == (whole.manifest.counts, whole.manifest.dropped)
    reports = [json.loads(one.store.read("report.json")) for one in (grown, whole)]
    for report in reports:
        report.pop("drift")
    assert reports[0] == reports[1]


def quarantined(version: Version) -> int:
    return sum(rows for reason, rows in version.manifest.dropped.items() if reason in ("null_user", "unknown_event"))


class Work:
    """What a run did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cleaned = self.built = 0
        monkeypatch.setattr("raycl.data.clean.Cleaner.clean", self._counting("cleaned"))
        build = sequences.build

        def counted(events: pa.Table, *args: Any, **named: Any) -> sequences.Built:
            self.built += len(set(events["user"].to_pylist()))
            return build(events, *args, **named)

        monkeypatch.setattr(sequences, "build", counted)

    def _counting(self, name: str) -> Callable[..., Any]:
        from raycl.data.clean import Cleaner

        clean = Cleaner.clean

        def counted(cleaner: Any, *args: Any) -> Any:
            if cleaner.log.columns.user == "user_id":  # the report cleans a column at a time
                setattr(self, name, getattr(self, name) + 1)
            return clean(cleaner, *args)

        return counted

    def of(self, run: Callable[[], Any]) -> tuple[int, int]:
        """Fragments cleaned, and users built."""
        self.cleaned = self.built = 0
        run()
        return self.cleaned, self.built


@pytest.mark.parametrize("kind", RULES)
def test_a_log_that_grows_day_by_day_makes_the_same_as_one_built_whole(tmp_path: Path, kind: str) -> None:
    for day in (1, 2, 3):
        write_day(tmp_path, day)
    assert_same(*both(tmp_path, RULES[kind]))
    for day in (5, 4, 8):
        write_day(tmp_path, day)
        assert_same(*both(tmp_path, RULES[kind]))


def opinions(folder: Path) -> dict[str, Any]:
    columns = {"event": "opinion", "split": "part", "context": ["device"]}
    return {"logs": [{"uri": str(folder / "log"), "columns": columns}], "event_weights": {"view": 1.0}}


SKIPS = {"negative_events": ["skip"]}


@pytest.mark.parametrize("more", [{}, {"keep_user_events": 5, "min_item_events": 6}, {"split": {"kind": "column"}}])
def test_explicit_negatives_context_and_users_grow_as_they_are_built_whole(tmp_path: Path, more: Any) -> None:
    write_day(tmp_path, 1)
    for day in (2, 4, 3):
        write_day(tmp_path, day)
        people = pa.table({"user_id": [f"u{user}" for user in range(day, 60, day)], "age": list(range(day, 60, day))})
        shutil.rmtree(tmp_path / "people", ignore_errors=True)
        write_parquet(people, tmp_path / "people")
        users = {"users": {"uri": str(tmp_path / "people"), "features": [{"column": "age", "kind": "numeric"}]}}
        grown, whole = both(tmp_path, SKIPS | more, **opinions(tmp_path), **users)
        assert_same(grown, whole)
        assert grown.manifest.counts["negatives"] > 10


def test_an_item_that_was_only_ever_turned_down_and_leaves_the_catalogue_is_unknown(tmp_path: Path) -> None:
    write_day(tmp_path, 1)
    table = pa.table({"user_id": ["u5", "u6"], "item_id": [7, 7], "timestamp": [NOW_S, NOW_S + 1]})
    more = {"kind": ["buy"] * 2, "opinion": ["skip"] * 2, "device": ["d1", "d2"], "part": ["train"] * 2}
    for name, values in more.items():
        table = table.append_column(name, pa.array(values))
    write_parquet(table, tmp_path / "log/dt=0")
    for items in (range(3, 40), range(8, 40)):
        shutil.rmtree(tmp_path / "items", ignore_errors=True)
        write_parquet(pa.table({"item_id": list(items), "title": [str(i) for i in items]}), tmp_path / "items")
        assert_same(*both(tmp_path, SKIPS, **opinions(tmp_path), items={"uri": str(tmp_path / "items")}))


@pytest.mark.parametrize("path", ["sequences/part-000001.parquet", "dropped/part-000000.parquet", "kept.json"])
def test_a_version_that_was_altered_is_not_gone_on_from_where_it_was(tmp_path: Path, path: str) -> None:
    for day in (1, 2):
        write_day(tmp_path, day)
    grown, _ = both(tmp_path, RULES["strict"])
    content = grown.store.read(path)
    grown.store.write(path, content[:-1] + bytes([content[-1] ^ 1]))
    write_day(tmp_path, 3)
    assert_same(*both(tmp_path, RULES["strict"]))


def test_force_takes_over_no_events_and_no_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_day(tmp_path, 1)
    first, _ = both(tmp_path, {})
    work = Work(monkeypatch)
    settings = config(tmp_path, "grown", {"incremental": True})
    cleaned, built = work.of(lambda: journey.pairs(settings, force=True))
    assert (cleaned, built > 20) == (2, True)
    newest = journey.workspace(settings).finished("pairs")[-1]
    assert newest != first.name
    assert_same(journey.workspace(settings).open("pairs", newest), first)


@pytest.mark.parametrize("kind", ["leave_last_out", "strict", "time"])
def test_days_that_leave_the_log_are_taken_out(tmp_path: Path, kind: str) -> None:
    for day in range(1, 7):
        write_day(tmp_path, day)
    both(tmp_path, RULES[kind])
    for gone in (1, 4):
        shutil.rmtree(tmp_path / f"log/dt={gone}")
    write_day(tmp_path, 7)
    grown, whole = both(tmp_path, RULES[kind])
    assert_same(grown, whole)
    assert quarantined(grown) > 0


def test_a_new_day_costs_its_own_files_and_the_users_it_touches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(1, 9):
        write_day(tmp_path, day)
    settings = config(tmp_path, "grown", {"incremental": True})
    journey.pairs(settings)
    write_day(tmp_path, 30, num_rows=40)
    work = Work(monkeypatch)
    cleaned, built = work.of(lambda: journey.pairs(settings))
    assert cleaned == 2
    assert 10 < built <= 40
    afresh = work.of(lambda: journey.pairs(config(tmp_path, "whole", {})))
    assert afresh[0] == 18
    assert afresh[1] > 2 * built


def test_another_split_of_the_same_log_cleans_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_day(tmp_path, 1)
    journey.pairs(config(tmp_path, "grown", {"incremental": True}))
    work = Work(monkeypatch)
    other = {"incremental": True, "split": {"kind": "time"}, "max_history": 5}
    cleaned, _ = work.of(lambda: journey.pairs(config(tmp_path, "grown", other)))
    assert cleaned == 0


def test_a_file_that_was_written_anew_is_cleaned_again(tmp_path: Path) -> None:
    for day in (1, 2):
        write_day(tmp_path, day)
    both(tmp_path, {})
    write_day(tmp_path, 2, num_rows=200)
    assert_same(*both(tmp_path, {}))


def test_a_window_that_moves_keeps_the_files_that_stay_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(1, 6):
        write_day(tmp_path, day)

    def window(first: int, last: int) -> dict[str, Any]:
        at = [f"{np.datetime64(NOW_S + DAY_S * day, 's')}" for day in (first, last)]
        columns = {"event": "kind", "split": "part"}
        return {"logs": [{"uri": str(tmp_path / "log"), "columns": columns, "since": at[0], "until": at[1]}]}

    both(tmp_path, {}, **window(1, 4))
    work = Work(monkeypatch)
    cleaned, _ = work.of(lambda: journey.pairs(config(tmp_path, "grown", {"incremental": True}, **window(2, 6))))
    assert cleaned < 8
    assert_same(*both(tmp_path, {}, **window(2, 6)))


def test_a_catalogue_that_gains_and_loses_items_is_seen_by_kept_events(tmp_path: Path) -> None:
    for day in (1, 2):
        write_day(tmp_path, day)

    def catalogue(items: range) -> dict[str, Any]:
        shutil.rmtree(tmp_path / "items", ignore_errors=True)
        write_parquet(pa.table({"item_id": list(items), "title": [str(i) for i in items]}), tmp_path / "items")
        return {"items": {"uri": str(tmp_path / "items")}}

    for items in (range(8, 30), range(5, 30), range(5, 25), range(5, 60)):
        grown, whole = both(tmp_path, {}, **catalogue(items))
        assert_same(grown, whole)


@pytest.mark.parametrize("name", [kept_events.EVENTS, kept_events.COUNTS, "record.json"])
def test_kept_events_that_were_altered_or_lost_are_made_again(tmp_path: Path, name: str) -> None:
    for day in (1, 2):
        write_day(tmp_path, day)
    both(tmp_path, {})
    altered, lost, *_ = sorted((tmp_path / "grown/events").rglob(name))
    altered.write_bytes(altered.read_bytes()[:-7])
    lost.unlink()
    write_day(tmp_path, 3)
    assert_same(*both(tmp_path, {}))


def test_a_killed_run_leaves_kept_events_that_the_next_one_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (1, 2, 3):
        write_day(tmp_path, day)
    settings = config(tmp_path, "grown", {"incremental": True})

    def killed(name: str, task: Any, num_tasks: int, finished: Any = None) -> Any:
        in_this_process(name, task, num_tasks)  # and what they did is never marked as done
        raise KeyboardInterrupt

    monkeypatch.setattr(ray_runtime, "map_tasks", killed)
    with pytest.raises(KeyboardInterrupt):
        journey.pairs(settings)
    monkeypatch.setattr(ray_runtime, "map_tasks", in_this_process)
    work = Work(monkeypatch)
    cleaned, _ = work.of(lambda: journey.pairs(settings))
    assert cleaned == 0
    assert_same(*both(tmp_path, {}))


def age(folder: Path, days: int) -> None:
    """As if the folders of events were last used so long ago."""
    for used in folder.rglob("used"):
        used.write_text(str(int(used.read_text()) - days * 86_400_000))


def test_events_that_no_run_uses_any_more_are_swept_in_time(tmp_path: Path) -> None:
    for day in (1, 2):
        write_day(tmp_path, day)
    both(tmp_path, {})
    other = config(tmp_path, "grown", {"incremental": True}, seed=3, event_weights={"view": 1.0})
    journey.pairs(other)
    folders = list((tmp_path / "grown/events").glob("*/*"))
    assert len(folders) == 8
    shutil.rmtree(tmp_path / "log/dt=1")
    age(tmp_path / "grown/events", 10)
    write_day(tmp_path, 3)
    assert_same(*both(tmp_path, {}))
    assert len(list((tmp_path / "grown/events").glob("*/*"))) == 10
    age(tmp_path / "grown/events", 10)
    write_day(tmp_path, 4)
    assert_same(*both(tmp_path, {}))
    left = list((tmp_path / "grown/events").glob("*/*"))
    assert len(left) == 6
    assert len(set(left) & set(folders)) == 2


def test_a_killed_run_whose_events_were_swept_cleans_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (1, 2):
        write_day(tmp_path, day)
    settings = config(tmp_path, "grown", {"incremental": True})

    def killed(name: str, task: Any, num_tasks: int, finished: Any = None) -> Any:
        if name == "build":
            raise KeyboardInterrupt
        return in_this_process(name, task, num_tasks, finished)

    monkeypatch.setattr(ray_runtime, "map_tasks", killed)
    with pytest.raises(KeyboardInterrupt):
        journey.pairs(settings)
    monkeypatch.setattr(ray_runtime, "map_tasks", in_this_process)
    age(tmp_path / "grown/events", 100)
    kept_events.sweep(journey.workspace(settings).store, NOW_S * 1000)
    assert list((tmp_path / "grown/events").glob("*/*")) == []
    assert_same(*both(tmp_path, {}))
