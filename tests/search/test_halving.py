"""Which trials are given up: those that Ray Tune's own ASHA gives up too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler

from raycl.search import halving


def test_rungs_are_the_grace_and_its_multiples_by_powers() -> None:
    assert [epoch for epoch in range(1, 30) if halving.is_rung(epoch, 1, 3)] == [1, 3, 9, 27]
    assert [epoch for epoch in range(1, 30) if halving.is_rung(epoch, 2, 2)] == [2, 4, 8, 16]


def test_the_first_at_a_rung_goes_on_and_the_reason_names_the_bound() -> None:
    curves = {0: {1: 0.1}}
    assert halving.reason_to_stop(curves, 0, 1, 1, 3) is None
    curves[1] = {1: 0.09}
    assert halving.reason_to_stop(curves, 1, 1, 1, 3) == (
        "0.0900 after epoch 1 is below 0.1000, the bound of the best 1 in 3 of 1 other trials"
    )
    curves[1] = {1: 0.1}
    assert halving.reason_to_stop(curves, 1, 1, 1, 3) is None, "as good as the bound is good enough"


def test_between_rungs_nobody_is_given_up() -> None:
    assert halving.reason_to_stop({0: {2: 0.9}, 1: {2: 0.1}}, 1, 2, 1, 3) is None


@pytest.mark.parametrize(("grace", "reduction", "epochs"), [(1, 3, 9), (2, 2, 16), (1, 4, 20), (3, 3, 10)])
def test_decisions_are_those_of_ray_tune(grace: int, reduction: int, epochs: int) -> None:
    generator = np.random.default_rng(grace + reduction)
    theirs: Any = ASHAScheduler(
        metric="value", mode="max", grace_period=grace, reduction_factor=reduction, max_t=epochs + 1
    )
    alive = [SimpleNamespace(trial_id=str(number)) for number in range(12)]
    for trial in alive:
        theirs.on_trial_add(None, trial)
    curves: dict[int, dict[int, float]] = {}
    epoch_of = dict.fromkeys(range(12), 0)
    num_stopped = 0
    while alive:
        trial = alive[int(generator.integers(len(alive)))]  # trials come along at speeds of their own
        number = int(trial.trial_id)
        epoch_of[number] += 1
        value, epoch = float(generator.normal()), epoch_of[number]
        curves.setdefault(number, {})[epoch] = value
        found = theirs.on_trial_result(None, trial, {"training_iteration": epoch, "value": value})
        reason = halving.reason_to_stop(curves, number, epoch, grace, reduction)
        assert (reason is not None) == (found == "STOP")
        num_stopped += reason is not None
        if reason is not None or epoch == epochs:
            alive.remove(trial)
    assert num_stopped >= 3
