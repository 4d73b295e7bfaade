"""The values of trials: within their ends, the same for a seed, and no two trials alike."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from raycl.config_search import SearchConfig
from raycl.search.draws import draw


def search(fields: dict[str, Any], **settings: Any) -> SearchConfig:
    return SearchConfig.model_validate({"fields": fields, **settings})


FIELDS: dict[str, Any] = {
    "model.dim": [32, 64],
    "train.learning_rate": {"log_uniform": [1e-3, 1e-1]},
    "loss.temperature": {"uniform": [0.05, 0.2]},
    "model.history_layers": {"integers": [1, 3]},
    "train.global_batch_size": {"log_integers": [16, 1024]},
}


def test_a_seed_draws_the_same_values_and_another_one_others() -> None:
    assert draw(search(FIELDS, seed=3)) == draw(search(FIELDS, seed=3))
    assert draw(search(FIELDS, seed=3)) != draw(search(FIELDS, seed=4))


def test_more_trials_begin_with_the_fewer() -> None:
    assert draw(search(FIELDS, num_trials=30))[:10] == draw(search(FIELDS, num_trials=10))


def test_a_field_is_drawn_alike_whatever_else_is_searched() -> None:
    alone = draw(search({"train.learning_rate": FIELDS["train.learning_rate"]}))
    among = draw(search(FIELDS))
    assert [one["train.learning_rate"] for one in alone] == [one["train.learning_rate"] for one in among]


def test_numbers_are_spread_over_their_range_as_it_says() -> None:
    drawn = draw(search(FIELDS, num_trials=2_000))
    rates = np.log([one["train.learning_rate"] for one in drawn])
    heats = np.array([one["loss.temperature"] for one in drawn])
    sizes = np.log([one["train.global_batch_size"] for one in drawn])
    for values, low, high in (
        (rates, math.log(1e-3), math.log(1e-1)),
        (heats, 0.05, 0.2),
        (sizes, math.log(16), math.log(1024)),
    ):
        assert low <= values.min() < values.max() <= high
        parts = np.histogram(values, bins=4, range=(low, high))[0] / len(values)
        np.testing.assert_allclose(parts, 0.25, atol=0.05)
    layers = [one["model.history_layers"] for one in drawn]
    assert all(abs(layers.count(number) / len(layers) - 1 / 3) < 0.05 for number in (1, 2, 3))
    assert set(layers) == {1, 2, 3}


def test_values_are_as_short_as_a_person_reads_them() -> None:
    assert all(len(f"{one['loss.temperature']!r}") <= 9 for one in draw(search(FIELDS)))


@pytest.mark.parametrize(
    "fields",
    [
        {"a": ["x", "y", "x"], "b": {"integers": [1, 3]}},
        {"a": [[64], [128, 64]], "b": {"log_integers": [1, 3]}},
        {"a": [{"kind": "linear"}, "cosine", None, 1e-3, True, 1]},
    ],
)
def test_few_combinations_are_each_tried_once(fields: dict[str, Any]) -> None:
    drawn = [json.dumps(one, sort_keys=True) for one in draw(search(fields, num_trials=50))]
    assert len(drawn) == len(set(drawn)) == 6
