"""Rows that items keep from version to version, in a vocabulary of any number of parts; and rare items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raycl import config_file, journey, ray_runtime
from raycl.config import Config
from raycl.data import vocabulary_tasks
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Version
from raycl.training import passes
from raycl.training.prepare import prepare
from tests.data.builders import in_this_process, write_parquet


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_runtime, "connect", lambda _: None)
    monkeypatch.setattr(ray_runtime, "map_tasks", in_this_process)
    monkeypatch.setattr("raycl.data.report_page.render", lambda _: "")  # it takes most of a run's time here


@pytest.fixture(params=[1, 3])
def num_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Parts of a vocabulary of the logs below."""
    monkeypatch.setattr(vocabulary_tasks, "_ROWS_A_PART", 10_000 if request.param == 1 else 100)
    return int(request.param)


def write_day(folder: Path, day: int, items: list[int], text: bool = False) -> None:
    """300 events of 30 users on these items."""
    generator = np.random.default_rng(day)
    drawn = generator.choice(items, 300)
    table = pa.table(
        {
            "user_id": generator.integers(0, 30, 300),
            "item_id": pa.array([f"i{item}" for item in drawn]) if text else drawn,
            "timestamp": 86_400 * day + generator.permutation(300),
        }
    )
    write_parquet(table, folder / f"log/day={day}")


def config(folder: Path, **sections: Any) -> Config:
    plain = {"workspace": str(folder / "workspace"), "logs": [{"uri": str(folder / "log")}]}
    return config_file.check(plain | {"pairs": {"num_buckets": 2} | sections.pop("pairs", {})} | sections)


def run(settings: Config, **flags: Any) -> Version:
    return journey.pairs(settings, **flags).version


def rows_of(version: Version) -> dict[Any, int]:
    table = Pairs.of(version).vocabulary()
    assert table["row"].to_pylist() == list(range(table.num_rows))
    return dict(zip(table["item"].to_pylist(), table["row"].to_pylist(), strict=True))


def events_of(version: Version) -> list[tuple[Any, list[Any], list[int]]]:
    """User, items by id, and times."""
    pairs = Pairs.of(version)
    ids = pairs.vocabulary()["item"].to_pylist()
    rows = [row for path, _ in pairs.files("train") for row in tables.read(pairs.store, path).to_pylist()]
    return sorted((row["user"], [ids[item] for item in row["items"]], row["times_ms"]) for row in rows)


@pytest.mark.parametrize("text", [False, True])
def test_items_keep_their_rows_and_new_ones_follow(tmp_path: Path, num_parts: int, text: bool) -> None:
    write_day(tmp_path, 1, list(range(10, 60)), text)
    first = run(config(tmp_path))
    assert first.manifest.facts["vocabulary"] == {
        "parts": num_parts,
        "rows": first.manifest.counts["items"],
        "goes_on_from": None,
    }
    write_day(tmp_path, 2, list(range(0, 80)), text)
    second = run(config(tmp_path))
    before, after = rows_of(first), rows_of(second)
    assert {item: after[item] for item in before} == before
    assert len(after) > len(before)
    assert min(row for item, row in after.items() if item not in before) == len(before)
    assert second.manifest.facts["vocabulary"]["goes_on_from"] == first.name


def test_a_vocabulary_that_goes_on_changes_nothing_but_the_rows(tmp_path: Path, num_parts: int) -> None:
    write_day(tmp_path, 1, list(range(40)))
    run(config(tmp_path))
    write_day(tmp_path, 2, list(range(20, 60)))
    grown = run(config(tmp_path))
    afresh = run(config(tmp_path, workspace=str(tmp_path / "other")))
    assert events_of(grown) == events_of(afresh)
    assert grown.manifest.dropped == afresh.manifest.dropped
    assert grown.manifest.counts == afresh.manifest.counts
    columns = ["item", "log_count", "train_count", "train_targets"]
    tables_of = [Pairs.of(one).vocabulary().select(columns).sort_by("item") for one in (grown, afresh)]
    assert tables_of[0] == tables_of[1]


def test_an_item_that_is_gone_keeps_its_row_and_is_retired(tmp_path: Path, num_parts: int) -> None:
    write_day(tmp_path, 1, list(range(40)))
    write_day(tmp_path, 2, list(range(30, 60)))
    first = run(config(tmp_path))
    (tmp_path / "log/day=1/part-000.parquet").unlink()
    (tmp_path / "log/day=1").rmdir()
    second = run(config(tmp_path))
    assert rows_of(second) == rows_of(first)
    table = Pairs.of(second).vocabulary()
    gone = {item for item, retired in zip(*(table[n].to_pylist() for n in ("item", "retired")), strict=True) if retired}
    assert gone == set(rows_of(first)) - set(range(30, 60))
    assert second.manifest.counts["items"] == table.num_rows - len(gone)
    assert table.filter(table["retired"])["train_count"].to_pylist() == [0] * len(gone)
    assert Pairs.of(second).retired().sum() == len(gone)


def test_rows_of_another_config_are_not_gone_on_from(tmp_path: Path) -> None:
    write_day(tmp_path, 1, list(range(40)))
    run(config(tmp_path))
    assert run(config(tmp_path, seed=1)).manifest.facts["vocabulary"]["goes_on_from"] is None


def test_rows_go_on_when_the_window_of_a_log_moves(tmp_path: Path) -> None:
    write_day(tmp_path, 1, list(range(40)))
    write_day(tmp_path, 2, list(range(40)))
    window = {"uri": str(tmp_path / "log"), "until": "1970-01-04"}
    first = run(config(tmp_path, logs=[window | {"since": "1970-01-02"}]))
    second = run(config(tmp_path, logs=[window | {"since": "1970-01-03"}]))
    assert second.manifest.facts["vocabulary"]["goes_on_from"] == first.name


def catalogue(folder: Path, items: list[int]) -> dict[str, Any]:
    table = pa.table({"item_id": items, "title": [f"t{item}" for item in items], "genre": [item % 3 for item in items]})
    (folder / "items").mkdir(exist_ok=True)
    for old in (folder / "items").iterdir():
        old.unlink()
    write_parquet(table, folder / "items")
    return {"uri": str(folder / "items"), "features": [{"column": "genre"}]}


def test_a_catalogue_that_changes_leaves_every_item_its_row_title_and_features(tmp_path: Path) -> None:
    write_day(tmp_path, 1, list(range(40)))
    first = run(config(tmp_path, items=catalogue(tmp_path, list(range(5, 40)))))
    second = run(config(tmp_path, items=catalogue(tmp_path, [50, 3, *range(10, 40)])))
    before, after = rows_of(first), rows_of(second)
    assert {item: after[item] for item in before} == before
    assert {item: row - len(before) for item, row in after.items() if item not in before} == {3: 0, 50: 1}
    pairs = Pairs.of(second)
    shown = {row["item"]: row["title"] for row in pairs.catalogue().to_pylist()}
    assert pairs.catalogue()["item"].to_pylist() == list(after)
    assert shown == {item: None if item in range(5, 10) else f"t{item}" for item in after}
    assert np.flatnonzero(pairs.retired()).tolist() == [before[item] for item in range(5, 10)]
    features, encoder = pairs.encoded("items"), pairs.encoders("items").features[0]
    assert features is not None
    tokens = dict(zip(after, features["genre"].to_pylist(), strict=True))
    assert {item: tokens[item] for item in (3, 10, 50)} == {
        item: [encoder.values.index(str(item % 3)) + 2] for item in (3, 10, 50)
    }
    assert second.manifest.dropped["unknown_item"] > 0


def test_a_killed_run_goes_on_with_the_rows_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_day(tmp_path, 1, list(range(40)))
    first = run(config(tmp_path))
    write_day(tmp_path, 2, list(range(60)))

    def killed(name: str, task: Any, num_tasks: int, finished: Any = None) -> Any:
        if name == "build":
            raise KeyboardInterrupt
        return in_this_process(name, task, num_tasks, finished)

    monkeypatch.setattr(ray_runtime, "map_tasks", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config(tmp_path))
    monkeypatch.setattr(ray_runtime, "map_tasks", in_this_process)
    (Path(first.store.uri) / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError):
        first.store.read("manifest.json")
    assert run(config(tmp_path)).manifest.facts["vocabulary"]["goes_on_from"] == first.name


def test_rare_items_that_are_hashed_stay_in_pairs_and_share_embeddings(tmp_path: Path, num_parts: int) -> None:
    write_day(tmp_path, 1, [*range(20)] * 10 + [*range(20, 60)])
    strict = run(config(tmp_path, pairs={"min_item_events": 9}))
    hashed = run(config(tmp_path, pairs={"min_item_events": 9, "rare_items": "hash", "rare_buckets": 4}))
    assert strict.manifest.dropped["rare_item"] > 10
    assert "rare_item" not in hashed.manifest.dropped
    pairs = Pairs.of(hashed)
    counts, rows = pairs.vocabulary()["log_count"].to_numpy(), pairs.embedding_rows()
    assert rows is not None
    own = counts >= 9
    assert (~own).sum() > 10
    assert sorted(rows[own]) == list(range(4, 4 + own.sum()))
    assert set(rows[~own]) <= set(range(4))
    assert len(set(rows[~own])) > 1
    assert Pairs.of(strict).embedding_rows() is None


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"pairs": {"rare_items": "hash"}}, r"pairs\.rare_items=hash needs pairs\.min_item_events of 2 or more"),
        (
            {"pairs": {"rare_items": "hash", "min_item_events": 2}, "model": {"item_id": False}},
            r"pairs\.rare_items=hash shares embeddings of items, which model\.item_id=false does without",
        ),
    ],
)
def test_a_hash_that_would_change_nothing_is_refused(tmp_path: Path, sections: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(tmp_path, **sections)


def test_a_vocabulary_that_has_outgrown_its_parts_is_cut_anew_and_rows_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary_tasks, "_ROWS_A_PART", 150)
    write_day(tmp_path, 1, list(range(40)))
    first = run(config(tmp_path))
    for day in (2, 3, 4):
        write_day(tmp_path, day, list(range(60)))
    second = run(config(tmp_path))
    assert [one.manifest.facts["vocabulary"]["parts"] for one in (first, second)] == [2, 8]
    before, after = rows_of(first), rows_of(second)
    assert {item: after[item] for item in before} == before
    assert events_of(second) == events_of(run(config(tmp_path, workspace=str(tmp_path / "other"))))


def test_what_is_retired_is_no_negative_of_training(tmp_path: Path) -> None:
    write_day(tmp_path, 1, list(range(40)))
    run(config(tmp_path))
    write_day(tmp_path, 2, list(range(30, 60)))
    (tmp_path / "log/day=1/part-000.parquet").unlink()
    (tmp_path / "log/day=1").rmdir()
    settings = config(tmp_path, train={"global_batch_size": 20}, loss={"negatives": {"uniform": 500}})
    pairs = Pairs.of(run(settings))
    job = prepare(settings, pairs, Store(str(tmp_path / "towers")))
    assert job.num_active == int((~pairs.retired()).sum()) < pairs.num_items
    drawn = passes.of(job, None, next(job.stream.epoch(0)), 0, torch.device("cpu")).uniform
    assert len(drawn) == 500
    assert not pairs.retired()[drawn.numpy()].any()


def test_the_core_and_hashed_items_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"pairs\.core_rounds=2 drops the rare items that pairs\.rare_items=hash keeps"
    ):
        config(tmp_path, pairs={"core_rounds": 2, "rare_items": "hash"})
