"""How many replicas: what Serve is told, and what it counts where it does not see the requests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.config import AutoscalingConfig

from raycl.config import ServingConfig
from raycl.serving import ray_scaling


@pytest.mark.parametrize(("in_flight", "replicas"), [(0, 1), (1, 1), (32, 1), (33, 2), (320, 10)])
def test_there_are_replicas_for_what_is_under_way(in_flight: int, replicas: int) -> None:
    assert ray_scaling.wanted(in_flight, 32) == replicas


def context(**reported: float) -> Any:
    config = AutoscalingConfig(target_ongoing_requests=4)
    metrics = {ray_scaling.IN_FLIGHT: reported} if reported else {}
    return SimpleNamespace(aggregated_metrics=metrics, config=config, target_num_replicas=3)


def test_the_sum_over_replicas_decides_and_without_reports_nothing_changes() -> None:
    assert ray_scaling.by_in_flight(context(a=7.0, b=2.0)) == (3, {})
    assert ray_scaling.by_in_flight(context(a=0.0)) == (1, {})
    assert ray_scaling.by_in_flight(context()) == (3, {})


def test_the_settings_are_those_of_the_config() -> None:
    config = ServingConfig(min_replicas=2, max_replicas=5, target_ongoing_requests=7, upscale_delay_s=1.5)
    told = AutoscalingConfig(**ray_scaling.own_settings(config))
    assert (told.min_replicas, told.max_replicas, told.target_ongoing_requests) == (2, 5, 7)
    assert (told.upscale_delay_s, told.downscale_delay_s) == (1.5, 120.0)
    assert told.policy.get_policy() is not None
    assert AutoscalingConfig(**ray_scaling.settings(config, 2, 1)).max_replicas == 2
