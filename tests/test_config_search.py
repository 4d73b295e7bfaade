"""A search that cannot be run is refused at the door, by the field."""

from __future__ import annotations

from typing import Any

import pytest

from raycl import config_file
from raycl.config_search import SearchConfig, Space
from raycl.errors import ConfigError
from tests.test_config import tree

RATE = {"train.learning_rate": {"log_uniform": [0.001, 0.1]}}
BY_TIME = {"pairs.split": {"kind": "time", "val_share": 0.1, "test_share": 0.1}}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no field": ({"search": {"fields": {}}}, "search.fields={}: dictionary should have at least 1 item"),
    "two ways to draw": (
        {"search": {"fields": {"model.dim": {"choice": [8], "integers": [1, 2]}}}},
        "search.fields.model.dim={'choice': [8], 'integers': [1, 2]}: write one of choice, uniform, log_uniform,"
        " integers, log_integers, and choice and integers are given",
    ),
    "no way to draw": (
        {"search": {"fields": {"model.dim": {}}}},
        "search.fields.model.dim={}: write one of choice, uniform, log_uniform, integers, log_integers, and none of"
        " them is given",
    ),
    "ends the wrong way round": (
        {"search": {"fields": {"model.dim": {"integers": [9, 3]}}}},
        "integers goes from 9 to 3: write the smaller number first",
    ),
    "a logarithm of nothing": (
        {"search": {"fields": {"train.learning_rate": {"log_uniform": [0, 1]}}}},
        "log_uniform starts at 0, which has no logarithm: start above 0",
    ),
    "a metric that no training measures": (
        {"search": {"fields": RATE, "metric": "precision_at_20"}},
        "search.metric=precision_at_20: string should match pattern",
    ),
    "lists of another length": (
        {"search": {"fields": RATE, "metric": "ndcg_at_10"}},
        "search.metric=ndcg_at_10 and train.validation.k=20: lists of one length are measured, so write"
        " search.metric=ndcg_at_20 or train.validation.k=10",
    ),
    "no validation": (
        {"search": {"fields": RATE}, "train": {"validation": {"users": 0}}},
        "search.metric=recall_at_20 needs validation, and train.validation.users=0 measures nothing: raise it",
    ),
    "no validation part": (
        {"search": {"fields": RATE}, "pairs.split": {"kind": "leave_last_n", "num_val": 0}},
        "search.metric=recall_at_20 needs a validation part, and pairs.split.num_val=0 makes none: raise it",
    ),
    "a validation part that is trained on": (
        {
            "search": {"fields": RATE},
            "pairs.split": {"kind": "column", "train_on_val": True},
            "logs": [{"uri": "log.parquet", "columns": {"split": "part"}}],
        },
        "search.metric=recall_at_20 needs a validation part, and pairs.split.train_on_val=true makes none: set it to",
    ),
    "a field of a later stage": (
        {"search": {"fields": {"gate.min_recall": [0.1, 0.2]}}},
        "search.fields.gate.min_recall shapes no towers, so that trials would not differ: search one of",
    ),
    "a field of what is measured": (
        {"search": {"fields": {"train.validation.k": [10, 20]}}},
        "search.fields.train.validation.k changes what trials are measured on, so that they could not be compared",
    ),
    "a field that holds what is measured": (
        {"search": {"fields": {"pairs": [{}, {"max_history": 9}]}}},
        "search.fields.pairs changes what trials are measured on, so that they could not be compared",
    ),
    "a field within another": (
        {"search": {"fields": {"model": [{"dim": 8}], "model.dim": [8]}}},
        "search.fields.model holds search.fields.model.dim, which is drawn apart: leave one of them out",
    ),
    "an ensemble of trials": (
        {"search": {"fields": RATE}, "ensemble": {"towers": ["a", "b"]}},
        "ensemble.towers=['a', 'b'] puts finished towers together, and search trains some: leave one of them out",
    ),
    "folds of users": (
        {"search": {"fields": RATE, "folds": 3}},
        "search.folds=3 are windows of time, and pairs.split.kind=leave_last_out: use time, or one fold",
    ),
    "folds that leave nothing": (
        {"search": {"fields": RATE, "folds": 9}, **BY_TIME},
        "search.folds=9 with pairs.split.val_share=0.1 and pairs.split.test_share=0.1 leave 0% of all events to train"
        " the last fold on, less than its validation has: use fewer folds or smaller shares",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_search_that_cannot_be_run_is_refused_by_the_field(case: str) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        config_file.check(tree(changes))
    assert message in str(caught.value)


def test_a_list_alone_is_a_choice() -> None:
    found = SearchConfig.model_validate({"fields": {"model.dim": [8, 16]}})
    assert found.fields == {"model.dim": Space(choice=(8, 16))}


def test_a_config_with_a_search_is_written_and_read_back() -> None:
    config = config_file.check(tree({"search": {"fields": RATE | {"model.hidden": [[8], [16, 8]]}}, **BY_TIME}))
    assert config_file.check(config_file.apply_overrides(config.model_dump(mode="json"), ())) == config


def test_as_many_folds_as_leave_something_are_taken() -> None:
    config = config_file.check(tree({"search": {"fields": RATE, "folds": 8}, **BY_TIME}))
    assert config.search is not None
    assert config.search.folds == 8
