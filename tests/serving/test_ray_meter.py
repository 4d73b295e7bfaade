"""Every metric can be told its values on Ray, and says what it counts."""

from __future__ import annotations

import re

import pytest

from raycl.serving.meter import METRICS, Meter, NoMeter
from raycl.serving.ray_meter import RayMeter


@pytest.mark.parametrize("kind", [RayMeter, NoMeter])
def test_a_meter_takes_every_metric_with_its_tags(kind: type[RayMeter] | type[NoMeter]) -> None:
    meter: Meter = kind()
    for name, metric in METRICS.items():
        tags = dict.fromkeys(metric.tags, "one")
        if metric.kind == "counter":
            meter.add(name, 1.0, **tags)
        elif metric.kind == "gauge":
            meter.set(name, 1.0)
        else:
            meter.observe(name, 0.5, **tags)


def test_metrics_are_described_and_bounds_ascend() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"raycl_[a-z_]+", name)
        assert metric.description.endswith((".", "alert."))
        assert (metric.kind == "histogram") == bool(metric.bounds)
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert metric.kind != "gauge" or not metric.tags
