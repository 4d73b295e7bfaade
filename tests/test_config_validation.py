"""The settings of validation, schedules and early stop: their short forms, and what cannot work together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raycl import config_file
from raycl.config import TrainConfig
from raycl.config_validation import Cosine, Plateau, needed_by
from raycl.errors import ConfigError
from tests.tiny import tiny_tree


def check(pairs: dict[str, Any] | None = None, **train: Any) -> TrainConfig:
    tree = tiny_tree(Path("/nowhere"))
    tree["train"] |= train
    tree["pairs"] |= pairs or {}
    tree["logs"][0]["columns"] = {**tree["logs"][0].get("columns", {}), "split": "part"}
    return config_file.check(tree).train


def test_by_default_every_epoch_is_validated_and_all_are_trained() -> None:
    train = check()
    assert (train.validation.users, train.validation.k, train.validation.steps) == (20_000, 20, None)
    assert (train.early_stop, train.keep, train.schedule) == (None, "auto", Cosine(kind="cosine"))
    assert needed_by(train) is None


def test_a_schedule_is_a_name_or_a_mapping() -> None:
    assert check(schedule="plateau").schedule == check(schedule={"kind": "plateau"}).schedule
    assert check(schedule={"kind": "plateau", "factor": 0.3}).schedule == Plateau(kind="plateau", factor=0.3)


@pytest.mark.parametrize(
    ("train", "named"),
    [
        ({"keep": "best"}, "train.keep=best"),
        ({"early_stop": {"patience": 4}}, "train.early_stop.patience=4"),
        ({"schedule": "plateau"}, "train.schedule=plateau"),
        ({"validation": {"steps": 10}}, "train.validation.steps=10"),
    ],
)
def test_what_validations_decide_needs_some(train: dict[str, Any], named: str) -> None:
    off = {"validation": train.get("validation", {}) | {"users": 0}}
    with pytest.raises(
        ConfigError, match=rf"{named} needs validation, and train\.validation\.users=0 measures nothing"
    ):
        check(**(train | off))
    if "validation" not in train:
        split = {"kind": "leave_last_n", "num_val": 0}
        with pytest.raises(
            ConfigError, match=rf"{named} needs a validation part, and pairs\.split\.num_val=0 makes none"
        ):
            check(pairs={"split": split}, **train)
        with pytest.raises(
            ConfigError, match=rf"{named} needs a validation part, and pairs\.split\.train_on_val=true makes none"
        ):
            check(pairs={"split": {"kind": "column", "train_on_val": True}}, **train)
    check(**train)
    check(validation={"users": 0})


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"schedule": "polynomial"}, r"train\.schedule"),
        ({"schedule": {"kind": "cosine", "factor": 0.5}}, r"train\.schedule"),
        ({"schedule": {"kind": "plateau", "factor": 1.0}}, r"train\.schedule.*factor"),
        ({"early_stop": {"patience": 0}}, r"train\.early_stop\.patience"),
        ({"validation": {"users": -1}}, r"train\.validation\.users"),
    ],
)
def test_bad_values_are_named(train: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(**train)
