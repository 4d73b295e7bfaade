"""From a finished pairs version to a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from raycl import journey
from raycl.config import Config
from raycl.data import ray_pairs
from raycl.data.features import UNKNOWN
from raycl.data.handoff import Pairs
from raycl.data.reader import read
from raycl.data.views import correlated
from raycl.errors import InputError
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.training import loop
from raycl.training.job import Job
from raycl.training.prepare import prepare
from tests.data import whole

SUBSTITUTING = {"terms": ["softmax", {"kind": "views", "substitute": 0.3}]}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs are made in this process."""
    whole.without_ray(monkeypatch)


def prepared(folder: Path, **sections: Any) -> tuple[Config, Pairs, Job]:
    whole.write_log(folder)
    train = {"global_batch_size": 32, "epochs": 1} | sections.pop("train", {})
    config = whole.config(folder, train=train, model={"dim": 8}, **sections)
    version, _ = ray_pairs.run(config, journey.workspace(config))
    return config, Pairs.of(version), prepare(config, Pairs.of(version), Store(str(folder / "towers")))


def test_a_run_has_the_sizes_of_its_pairs(tmp_path: Path) -> None:
    config, pairs, run = prepared(tmp_path)
    assert (run.spec.num_items, run.spec.max_history, run.spec.model) == (25, 20, config.model)
    assert (run.spec.items.bag_tokens, run.spec.users.bag_tokens) == ((), (5,))
    assert (len(run.inputs.items), len(run.inputs.users)) == (25, 31)
    assert run.inputs.users.tokens[0][-1].tolist() == [UNKNOWN]
    assert run.inputs.train_counts.tolist() == pairs.train_counts().tolist()
    assert run.inputs.train_targets.tolist() == pairs.train_targets().tolist() != pairs.train_counts().tolist()
    assert run.stream.steps == sum(count for _, count in pairs.files("train")) // 32
    assert (run.seed, run.stream.rules) == (config.seed, config.pairs)


@pytest.mark.parametrize("sections", [{}, {"items": None, "users": None}])
def test_what_is_prepared_can_be_trained(tmp_path: Path, sections: dict[str, Any]) -> None:
    _, _, run = prepared(tmp_path, **sections)
    _, progress = loop.fit(run, torch.device("cpu"), lambda _: None)
    assert progress.step == run.stream.steps > 3


def test_a_user_table_without_features_can_be_trained_on(tmp_path: Path) -> None:
    _, _, run = prepared(tmp_path, users={"uri": str(tmp_path / "users"), "id_column": "id"})
    assert len(run.inputs.users) == 1
    assert loop.fit(run, torch.device("cpu"), lambda _: None)[1].step == run.stream.steps


def test_the_files_of_a_run_are_held_to_its_vocabulary(tmp_path: Path) -> None:
    _, pairs, run = prepared(tmp_path)
    assert run.stream.limits == (25, 30)
    path, _ = pairs.files("train")[1]
    table = tables.read(pairs.store, path)
    moved = [[item + 7 for item in items] for items in table["items"].to_pylist()]
    place = table.column_names.index("items")
    tables.write(
        pairs.store, path, table.set_column(place, table.schema.field(place), pa.array(moved, pa.list_(pa.int32())))
    )
    with pytest.raises(InputError, match=rf"{path} points at row \d\d in column 'items', and there are 25"):
        loop.fit(run, torch.device("cpu"), lambda _: None)


def test_without_a_validation_part_only_a_run_that_needs_none_is_prepared(tmp_path: Path) -> None:
    split = {"split": {"kind": "leave_last_n", "num_val": 0}}
    _, pairs, run = prepared(tmp_path, pairs=split)
    assert sum(count for _, count in run.held_out) == 0
    needing = whole.config(tmp_path, train={"keep": "best", "global_batch_size": 32})
    with pytest.raises(InputError, match=r"^train\.keep=best needs a validation part, and that of these pairs has no"):
        prepare(needing, pairs, Store(str(tmp_path / "towers")))


def test_pairs_that_do_not_fill_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^train\.global_batch_size=1024 is more than the \d+ training pairs: lower it$"
    ):
        prepared(tmp_path, train={"global_batch_size": 1_024})


def test_views_that_substitute_are_told_the_neighbours_in_training_histories(tmp_path: Path) -> None:
    _, pairs, run = prepared(tmp_path, loss=SUBSTITUTING)
    known = [read(pairs.store, [path], "train").trained_on() for path, _ in pairs.files("train")]
    assert run.inputs.neighbours is not None
    assert run.inputs.neighbours.tolist() == correlated(known, 25).tolist()
    whole_log = [read(pairs.store, [path], "train") for path, _ in pairs.files("train")]
    assert run.inputs.neighbours.tolist() != correlated(whole_log, 25).tolist()
    assert loop.fit(run, torch.device("cpu"), lambda _: None)[1].step == run.stream.steps
    assert prepared(tmp_path)[2].inputs.neighbours is None


def test_substitutes_are_counted_once_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, pairs, run = prepared(tmp_path, loss=SUBSTITUTING)
    monkeypatch.setattr("raycl.data.views.correlated", pytest.fail)
    again = prepare(config, pairs, Store(str(tmp_path / "towers"))).inputs.neighbours
    assert again is not None
    assert run.inputs.neighbours is not None
    assert again.tolist() == run.inputs.neighbours.tolist()
