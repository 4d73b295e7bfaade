"""Trials as whole configs: each is checked before anything starts, and folds move the window of validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raycl import config_file, lineage
from raycl.config import Config, TimeSplit
from raycl.data import splits
from raycl.errors import ConfigError
from raycl.search import trials
from tests.test_config import tree


def config(fields: dict[str, Any], changes: dict[str, Any] | None = None, **settings: Any) -> Config:
    return config_file.check(tree({"search": {"fields": fields, **settings}, **(changes or {})}))


def test_a_trial_is_the_config_with_its_values_and_without_the_search() -> None:
    base = config({"model.dim": [16], "loss.terms": [["bpr"]], "train.schedule": ["linear"]})
    (trial,) = trials.of(base)
    expected = config_file.check(
        tree({"model": {"dim": 16}, "loss": {"terms": ["bpr"]}, "train": {"schedule": "linear"}})
    )
    assert trial.folds == (expected,)
    assert trial.named == f"model.dim=16, loss.terms={trial.values['loss.terms']}, train.schedule={{'kind': 'linear'}}"


def test_a_field_that_only_a_default_section_has_is_found() -> None:
    (trial,) = trials.of(config({"loss.terms.0.weight": [0.5], "train.early_stop.patience": [2]}))
    assert trial.folds[0].loss.terms[0].weight == 0.5
    assert trial.folds[0].train.early_stop is not None


def test_numbers_that_yaml_reads_as_text_are_numbers_in_the_trial() -> None:
    assert trials.of(config({"train.learning_rate": ["1e-2"]}))[0].values == {"train.learning_rate": 0.01}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.dimm": [8]}, "search.fields: trial 0 (model.dimm=8) is refused: model.dimm=8: unknown key; did you"),
        ({"model.dim": [-1]}, "search.fields: trial 0 (model.dim=-1) is refused: model.dim=-1: input should be"),
        ({"model.dim.x": [1]}, "search.fields.model.dim.x: 'model.dim' is a plain value and has no 'x'"),
        ({"loss.terms.7.weight": [1]}, "search.fields.loss.terms.7.weight: '7' is no position in a list of 1"),
        ({"train.num_workers": [3]}, "is refused: train.global_batch_size=2048 must divide evenly by"),
    ],
)
def test_a_trial_that_could_not_run_is_refused_by_number_and_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        trials.of(config(fields))
    assert message in str(caught.value)


def test_a_config_without_a_search_says_how_to_write_one() -> None:
    with pytest.raises(ConfigError, match=r"^search: required by raycl tune and not set; name what to try"):
        trials.of(config_file.check(tree({})))


def test_the_folds_of_a_trial_move_its_window_back_and_train_on_all_before_it() -> None:
    split = {"pairs.split": {"kind": "time", "val_share": 0.1, "test_share": 0.2}}
    (trial,) = trials.of(config({"model.dim": [16]}, split, folds=3))
    assert trial.folds[0].pairs.split == TimeSplit(kind="time", val_share=0.1, test_share=0.2)
    times = np.arange(1_000)
    windows = []
    for fold in trial.folds:
        chosen = fold.pairs.split
        assert isinstance(chosen, TimeSplit)
        cuts = splits.cut_times([(1_000, list(times))], chosen.val_share, chosen.test_share)
        windows.append((cuts.val_from_ms, cuts.test_from_ms))
    np.testing.assert_allclose(windows, [(700, 800), (600, 700), (500, 600)], atol=1)
    assert len({lineage.digest(fold, "pairs") for fold in trial.folds}) == 3


def test_trials_that_differ_in_training_alone_share_their_pairs() -> None:
    tried = trials.of(config({"model.dim": [8, 16], "loss.temperature": [0.1, 0.2], "train.epochs": [1, 2]}))
    assert len(tried) == 8
    assert len({lineage.digest(trial.folds[0], "pairs") for trial in tried}) == 1
    assert len({lineage.digest(trial.folds[0], "towers") for trial in tried}) == 8
