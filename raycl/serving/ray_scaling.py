"""How many replicas Ray Serve keeps: the settings of the config in its words, and a count of what it does not see."""

from __future__ import annotations

import math
from typing import Any

from ray.serve.config import AutoscalingContext, AutoscalingPolicy

from raycl.config_serving import ServingConfig

IN_FLIGHT = "in_flight"
"""What a replica reports that listens itself."""

_LOOK_BACK_S = 11.0
"""What is reported is averaged over so long, the least that Serve takes; the delays of the config come on top."""


def settings(config: ServingConfig, least: int, most: int) -> dict[str, Any]:
    """``autoscaling_config`` of a deployment that Serve's proxies or handles call."""
    return {
        "min_replicas": least,
        "max_replicas": max(least, most),
        "target_ongoing_requests": config.target_ongoing_requests,
        "look_back_period_s": _LOOK_BACK_S,
        "upscale_delay_s": config.upscale_delay_s,
        "downscale_delay_s": config.downscale_delay_s,
    }


def own_settings(config: ServingConfig) -> dict[str, Any]:
    """``settings`` of replicas that listen themselves, whose requests Serve does not see."""
    path = f"{__name__}:{by_in_flight.__name__}"
    by_themselves = AutoscalingPolicy(policy_function=path)  # type: ignore[no-untyped-call]
    return {**settings(config, config.min_replicas, config.max_replicas), "policy": by_themselves}


def by_in_flight(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """As many replicas as it takes for ``target_ongoing_requests`` in each, by what they report."""
    reported = (context.aggregated_metrics or {}).get(IN_FLIGHT, {})
    if not reported or context.config is None:
        return context.target_num_replicas, {}
    return wanted(sum(reported.values()), context.config.get_target_ongoing_requests()), {}


def wanted(in_flight: float, target: float) -> int:
    """Replicas for so many requests under way, ``target`` in each."""
    return max(1, math.ceil(in_flight / target))
