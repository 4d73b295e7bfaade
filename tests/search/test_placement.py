"""How many trials run at a time, and what each takes."""

from __future__ import annotations

from typing import Any

import pytest

from raycl.config import TrainConfig
from raycl.config_loss import LossConfig
from raycl.search import placement

MINED: dict[str, Any] = {"negatives": {"mined": {"per_pair": 1}}}


@pytest.mark.parametrize(
    ("train", "most", "cpus", "gpus", "loss", "trials", "resources"),
    [
        ({}, None, 8, 0, {}, 4, {"CPU": 2.0}),
        ({}, 3, 8, 0, {}, 3, {"CPU": 2.0}),
        ({"threads_per_worker": 16}, None, 4, 0, {}, 1, {"CPU": 4.0}),
        ({}, None, 8, 3, {}, 3, {"CPU": 0.0, "GPU": 1.0}),
        ({"use_gpu": "never"}, None, 8, 3, {}, 4, {"CPU": 2.0}),
        ({}, None, 8, 0, MINED, 3, {"CPU": 2.0}),
        ({"threads_per_worker": 1}, None, 1, 0, MINED, 1, {"CPU": 0.5}),
        ({"num_workers": 2}, None, 8, 0, {}, 2, {"CPU": 0.0, "memory": 1.0}),
        ({"num_workers": 2}, None, 8, 5, {}, 2, {"CPU": 0.0, "memory": 1.0}),
        ({"num_workers": {"min": 1, "max": 4}}, None, 8, 0, {}, 4, {"CPU": 0.0, "memory": 1.0}),
    ],
)
def test_trials_take_what_they_need_and_no_more_run_than_fit(
    train: dict[str, Any],
    most: int | None,
    cpus: float,
    gpus: int,
    loss: dict[str, Any],
    trials: int,
    resources: dict[str, float],
) -> None:
    room = placement.of(TrainConfig.model_validate(train), most, cpus, gpus, LossConfig.model_validate(loss))
    assert (room.trials, room.resources) == (trials, resources)
