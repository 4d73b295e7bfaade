"""The service's metrics on Ray, which hands them to Prometheus."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate

from ray.util.metrics import Counter, Gauge

from raycl.serving.meter import METRICS

log = logging.getLogger(__name__)

_HANDS_ON_EVERY_S = 5.0
"""Half of the time between two reports of a Ray process to its node."""

_Key = tuple[str, ...]
"""A metric's name, and the values of its tags in their order."""


@dataclass
class _Histogram:
    """How many values fell into each bucket, the last one without a bound, and their sum."""

    counts: list[int]
    total: float = 0.0


class RayMeter:
    """A ``Meter`` of one replica; Ray tells replicas apart.

    Values are added up here and handed to Ray now and then: a call into Ray costs as much as a part of an answer. A
    histogram goes as its series do in Prometheus, since of Ray's own the node's agent takes each value apart again, a
    second of CPU for 50,000 of them, and whatever shares the core waits.
    """

    def __init__(self) -> None:
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._counted: defaultdict[_Key, float] = defaultdict(float)
        self._set: dict[str, float] = {}
        self._failing = False
        self._observed: dict[_Key, _Histogram] = {}
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        for name, metric in METRICS.items():
            if metric.kind == "counter":
                self._counters[name] = Counter(name, metric.description, metric.tags)
            elif metric.kind == "gauge":
                self._gauges[name] = Gauge(name, metric.description, metric.tags)
            else:
                self._gauges[f"{name}_bucket"] = Gauge(f"{name}_bucket", metric.description, (*metric.tags, "le"))
                for part in ("sum", "count"):
                    self._gauges[f"{name}_{part}"] = Gauge(f"{name}_{part}", metric.description, metric.tags)

    def start(self) -> None:
        """From now on hand everything on, every few seconds."""
        threading.Thread(target=self._hand_on_forever, name="raycl-meter", daemon=True).start()

    def close(self) -> None:
        """Hand on what is left."""
        self._closed.set()
        self._try_to_hand_on()

    def add(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Count up."""
        with self._lock:
            self._counted[_key(name, tags)] += value

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Put a value into a histogram."""
        key, bounds = _key(name, tags), METRICS[name].bounds
        with self._lock:
            if (found := self._observed.get(key)) is None:
                found = self._observed[key] = _Histogram([0] * (len(bounds) + 1))
            found.counts[bisect_left(bounds, value)] += 1
            found.total += value

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._set[name] = value

    def hand_on(self) -> None:
        """Tell Ray all that there is to tell."""
        with self._lock:
            counted = [(key, value) for key, value in self._counted.items() if value]
            gauges = dict(self._set)
            histograms = {key: (list(one.counts), one.total) for key, one in self._observed.items()}
        for key, value in counted:
            self._counters[key[0]].inc(value, _tags(key))
            with self._lock:
                self._counted[key] -= value
        for name, value in gauges.items():
            self._gauges[name].set(value)
        for key, (counts, total) in histograms.items():
            name, tags = key[0], _tags(key)
            bounds = [*map(str, METRICS[name].bounds), "+Inf"]
            for bound, count in zip(bounds, accumulate(counts), strict=True):
                self._gauges[f"{name}_bucket"].set(count, {**tags, "le": bound})
            self._gauges[f"{name}_sum"].set(total, tags)
            self._gauges[f"{name}_count"].set(sum(counts), tags)

    def _hand_on_forever(self) -> None:
        while not self._closed.wait(_HANDS_ON_EVERY_S):
            self._try_to_hand_on()

    def _try_to_hand_on(self) -> None:
        try:
            self.hand_on()
            self._failing = False
        except Exception:  # of Ray: what it did not take is kept
            if not self._failing:
                log.exception("metrics do not reach Ray, which is tried again every %g s", _HANDS_ON_EVERY_S)
            self._failing = True


def _key(name: str, tags: dict[str, str]) -> _Key:
    return name, *(tags[tag] for tag in METRICS[name].tags)


def _tags(key: _Key) -> dict[str, str]:
    return dict(zip(METRICS[key[0]].tags, key[1:], strict=True))
