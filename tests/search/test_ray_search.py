"""A search on Ray: its winner is what training that config makes, and a killed search goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from raycl import config_file, journey, lineage
from raycl.config import Config
from raycl.journey import Outcome
from raycl.search import shown, trials
from raycl.storage.store import Store
from tests import tiny as builders
from tests.cluster import processes

ROOT = Path(__file__).resolve().parent.parent.parent


def searched(folder: Path, search: dict[str, Any], **sections: dict[str, Any]) -> Config:
    """The tiny journey with a search, on a log of its own."""
    tree = builders.tiny_tree(folder)
    builders.write_log(folder / "log")
    tree["train"] |= {"epochs": 3, "validation": {"k": 5}}
    for name, section in sections.items():
        tree[name] = tree.get(name, {}) | section
    return config_file.check(tree | {"search": {"metric": "recall_at_5", **search}})


@pytest.fixture(scope="module")
def tuned(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Outcome]:
    """A search of three trials: one that learns, then one that does not, and one that cannot be trained."""
    fields = {"train.learning_rate": [0.02, 1e-9, 1e30], "model.dim": [8]}
    config = searched(tmp_path_factory.mktemp("tuned"), {"fields": fields, "max_concurrent": 1})
    seeds = (builders.changed(config, "search", seed=seed) for seed in range(100))
    config = next(one for one in seeds if trials.of(one)[0].values["train.learning_rate"] == 0.02)
    return config, journey.tune(config)


def table(outcome: Outcome, path: str) -> pl.DataFrame:
    return shown.read(outcome.version, path)


def test_the_winner_is_what_training_its_config_makes(tuned: tuple[Config, Outcome]) -> None:
    config, outcome = tuned
    facts = outcome.version.manifest.facts["best"]
    written = config_file.load(Path(shown.write_best(outcome.version, None)))
    assert facts["values"] == {"train.learning_rate": 0.02, "model.dim": 8}
    assert written == builders.changed(config.model_copy(update={"search": None}), "train", learning_rate=0.02)
    again = journey.train(written, lambda _: None)
    assert (again.worked, again.version.name) == (False, facts["towers"]), "it needs no second training"
    assert facts["value"] == max(point["recall"] for point in again.version.manifest.facts["validation"])
    alone = journey.train(written, lambda _: None, force=True)
    assert alone.version.manifest.facts["validation"] == again.version.manifest.facts["validation"]


def test_each_trial_is_told_with_its_values_and_its_end(tuned: tuple[Config, Outcome]) -> None:
    config, outcome = tuned
    found = {row["train.learning_rate"]: row for row in table(outcome, shown.TRIALS_FILE).to_dicts()}
    assert set(found) == {0.02, 1e-9, 1e30}
    assert found[0.02]["status"] == "finished"
    assert found[0.02]["users"] == 40
    assert (found[1e30]["status"], found[1e30]["value"]) == ("failed", None)
    assert "lower train.learning_rate" in found[1e30]["reason"]
    assert outcome.version.manifest.counts == {
        "trials": 3,
        **{
            status: sum(row["status"] == status for row in found.values())
            for status in ("finished", "stopped", "failed")
        },
    }
    validated = journey.workspace(config).open("towers", found[0.02]["towers"]).manifest.facts["validation"]
    best_so_far = [max(point["recall"] for point in validated[: end + 1]) for end in range(3)]
    curve = table(outcome, shown.CURVES_FILE).filter(pl.col("trial") == found[0.02]["trial"])
    assert curve["value"].to_list() == best_so_far


def test_a_finished_search_is_found_again(tuned: tuple[Config, Outcome]) -> None:
    config, outcome = tuned
    again = journey.tune(builders.changed(config, "search", max_concurrent=2))
    assert (again.worked, again.version.name) == (False, outcome.version.name)


def test_trials_share_one_version_of_pairs_and_those_given_up_leave_no_towers(tuned: tuple[Config, Outcome]) -> None:
    config, outcome = tuned
    workspace = journey.workspace(config)
    assert len(workspace.finished("pairs")) == 1
    stopped = table(outcome, shown.TRIALS_FILE).filter(pl.col("status") == "stopped")["trial"].to_list()
    pairs = lineage.pairs(config, workspace)
    for number in stopped:
        digest = lineage.digest(trials.of(config)[number].folds[0], "towers", pairs.name)
        assert [name for name in workspace.store.names("towers") if name.endswith(digest[:12])] == []


def test_a_trial_that_falls_behind_is_given_up_with_a_reason(tuned: tuple[Config, Outcome]) -> None:
    _, outcome = tuned
    (row,) = table(outcome, shown.TRIALS_FILE).filter(pl.col("train.learning_rate") == 1e-9).to_dicts()
    assert (row["status"], row["epochs"], row["towers"]) == ("stopped", 1, None)
    assert "after epoch 1 is below" in row["reason"]


def test_folds_are_trainings_on_earlier_windows_and_their_mean_decides(ray_local: None, tmp_path: Path) -> None:
    split = {"kind": "time", "val_share": 0.2, "test_share": 0.2}
    config = searched(tmp_path, {"fields": {"model.dim": [4, 8]}, "folds": 2}, pairs={"split": split})
    outcome = journey.tune(config)
    workspace = journey.workspace(config)
    assert len(workspace.finished("pairs")) == 2
    for row in table(outcome, shown.TRIALS_FILE).filter(pl.col("status") == "finished").to_dicts():
        values = []
        for share in (0.2, 0.4):
            fold = builders.changed(config, "pairs", split=split | {"test_share": share})
            again = journey.train(builders.changed(fold, "model", dim=row["model.dim"]), lambda _: None)
            assert not again.worked
            values.append(max(point["recall"] for point in again.version.manifest.facts["validation"]))
        assert row["value"] == pytest.approx(sum(values) / 2)
        assert row["deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)


def test_a_search_that_is_killed_goes_on_and_trains_no_finished_trial_again(scratch: Path, tmp_path: Path) -> None:
    config = searched(
        tmp_path,
        {"fields": {"train.learning_rate": [0.02, 0.005]}, "grace_epochs": 3, "max_concurrent": 1},
        ray={"num_cpus": 1},
    )
    path = tmp_path / "shop.yaml"
    path.write_text(config_file.dump(config))
    command = [sys.executable, "-m", "raycl", "tune", str(path), "--best", str(tmp_path / "best.yaml"), "--json"]
    env = processes.as_a_user(scratch)
    first = processes.start(command, env, tmp_path / "said")
    store = Store(config.workspace)
    ends_at = time.monotonic() + 180
    try:
        while not any("/work/done/trial-" in path for path in store.files("searches")):
            assert first.poll() is None, "it ended before it was killed"
            assert time.monotonic() < ends_at
            time.sleep(0.1)
    finally:
        processes.kill(first)
    (finished,) = journey.workspace(config).finished("towers")
    ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert "search: 1 of 2 trials have ended before" in ended.stderr
    assert len(ended.stdout.splitlines()) == 1, "nothing but the line for machines"
    found = journey.workspace(config).finished("towers")
    assert (found[0], len(found)) == (finished, 2)
    assert yaml.safe_load((tmp_path / "best.yaml").read_text())["train"]["learning_rate"] in (0.02, 0.005)
