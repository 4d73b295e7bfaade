"""The service's metrics on Ray, which hands them to Prometheus."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

from raycl.serving.meter import METRICS


class RayMeter:
    """A ``Meter`` of one replica; Ray tells replicas apart."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for name, metric in METRICS.items():
            if metric.kind == "counter":
                self._counters[name] = Counter(name, metric.description, metric.tags)
            elif metric.kind == "gauge":
                self._gauges[name] = Gauge(name, metric.description, metric.tags)
            else:
                self._histograms[name] = Histogram(name, metric.description, list(metric.bounds), metric.tags)

    def add(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Count up."""
        self._counters[name].inc(value, tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Put a value into a histogram."""
        self._histograms[name].observe(value, tags)

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._gauges[name].set(value)
