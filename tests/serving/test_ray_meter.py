"""Every metric can be told its values on Ray, and says what it counts."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from raycl.serving import ray_meter
from raycl.serving.meter import METRICS, Meter, NoMeter
from raycl.serving.ray_meter import RayMeter


class Told:
    """Stands for a counter or a gauge of Ray; all that they were told, by name and tags."""

    values: dict[tuple[str, ...], float]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...] = ()) -> None:
        self.name, self.tag_keys = name, tag_keys

    def inc(self, value: float, tags: dict[str, str]) -> None:
        self.set(self.values.get(self._key(tags), 0.0) + value, tags)

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self.values[self._key(tags or {})] = value

    def _key(self, tags: dict[str, str]) -> tuple[str, ...]:
        assert set(tags) == set(self.tag_keys)
        return self.name, *(tags[key] for key in self.tag_keys)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], float]:
    values: dict[tuple[str, ...], float] = {}
    kind: Any = type("Here", (Told,), {"values": values})
    monkeypatch.setattr(ray_meter, "Counter", kind)
    monkeypatch.setattr(ray_meter, "Gauge", kind)
    return values


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
    if isinstance(meter, RayMeter):
        meter.close()


def test_counters_tell_each_count_once(told: dict[tuple[str, ...], float]) -> None:
    meter = RayMeter()
    for status in ("200", "200", "503"):
        meter.add("raycl_requests", route="/v1/retrieve", status=status)
    meter.hand_on()
    meter.add("raycl_requests", 2.0, route="/v1/retrieve", status="200")
    meter.hand_on()
    meter.hand_on()
    assert told == {
        ("raycl_requests", "/v1/retrieve", "200"): 4.0,
        ("raycl_requests", "/v1/retrieve", "503"): 1.0,
    }


def test_a_histogram_has_the_series_of_prometheus(told: dict[tuple[str, ...], float]) -> None:
    meter = RayMeter()
    for value in (1.0, 2.0, 3.0, 1_000.0):
        meter.observe("raycl_batch_queries", value)
    meter.hand_on()
    meter.observe("raycl_batch_queries", 3.0)
    meter.hand_on()
    buckets = {key[1]: count for key, count in told.items() if key[0] == "raycl_batch_queries_bucket"}
    assert list(buckets) == ["1.0", "2.0", "4.0", "8.0", "16.0", "32.0", "64.0", "128.0", "256.0", "+Inf"]
    assert list(buckets.values()) == [1, 2, 4, 4, 4, 4, 4, 4, 4, 5]
    assert (told["raycl_batch_queries_sum",], told["raycl_batch_queries_count",]) == (1_009.0, 5)


def test_a_meter_that_ends_hands_on_what_is_left(told: dict[tuple[str, ...], float]) -> None:
    meter = RayMeter()
    meter.start()
    meter.set("raycl_delta", 3.0)
    meter.set("raycl_delta", 4.0)
    meter.close()
    assert told == {("raycl_delta",): 4.0}


def test_metrics_are_described_and_bounds_ascend() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"raycl_[a-z_]+", name)
        assert metric.description.endswith((".", "alert."))
        assert (metric.kind == "histogram") == bool(metric.bounds)
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert metric.kind != "gauge" or not metric.tags


def test_a_call_into_ray_that_fails_is_told_once_and_nothing_is_lost(
    told: dict[tuple[str, ...], float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_meter, "_HANDS_ON_EVERY_S", 0.01)
    meter, went_on, fails = RayMeter(), threading.Event(), iter([True] * 3)
    (counter, *_) = [name for name, metric in METRICS.items() if metric.kind == "counter"]
    tags = dict.fromkeys(METRICS[counter].tags, "one")
    inc = Told.inc

    def take(self: Told, value: float, tags: dict[str, str]) -> None:
        if next(fails, False):
            raise RuntimeError("no agent")
        inc(self, value, tags)
        went_on.set()

    monkeypatch.setattr(Told, "inc", take)
    meter.add(counter, 2.0, **tags)
    meter.start()
    assert went_on.wait(10.0)
    meter.add(counter, 3.0, **tags)
    meter.close()
    assert told[counter, *tags.values()] == 5.0
    assert caplog.text.count("do not reach Ray") == 1
    assert "no agent" in caplog.text
