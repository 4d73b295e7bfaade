"""What the service measures of itself: the names of its metrics, and where their values go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_LONG = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0)


@dataclass(frozen=True)
class Metric:
    """A counter, a gauge, or a histogram with the upper bounds of its buckets."""

    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METRICS = {
    "raycl_requests": Metric("counter", "Answered HTTP requests.", ("route", "status")),
    "raycl_request_seconds": Metric("histogram", "From the whole request to the whole answer.", ("route",), _SECONDS),
    "raycl_phase_seconds": Metric("histogram", "One phase of one batch.", ("phase",), _SECONDS),
    "raycl_batch_queries": Metric("histogram", "Queries that were encoded and searched together.", (), _SIZES),
    "raycl_answers": Metric("counter", "Answered queries, by what their order came from.", ("basis",)),
    "raycl_short_answers": Metric("counter", "Answers with fewer items than were asked for."),
    "raycl_degraded_answers": Metric("counter", "Answers that lack something for want of time.", ("what",)),
    "raycl_lost_shards": Metric("counter", "Parts of the index that did not answer a batch in time."),
    "raycl_late_requests": Metric("counter", "Requests whose deadline had passed."),
    "raycl_shed_requests": Metric("counter", "Requests turned away, by why.", ("why",)),
    "raycl_session_users": Metric("gauge", "Users whose fresh events are remembered."),
    "raycl_release_age_seconds": Metric("gauge", "Since the release that answers was begun."),
    "raycl_swaps": Metric("counter", "Releases that took over."),
    "raycl_swap_seconds": Metric("histogram", "To read, check and warm a release.", (), _LONG),
    "raycl_swap_failures": Metric("counter", "Attempts at a newer release that failed."),
    "raycl_delta": Metric("gauge", "The newest hand-in to the release that is answered from; 0 without any."),
    "raycl_delta_seconds": Metric("histogram", "From a hand-in to its answers.", (), _LONG),
    "raycl_release_stale": Metric("gauge", "1 while the newest release, or a hand-in to it, does not answer: alert."),
}
"""By name; Ray puts ``ray_`` before it."""


class Meter(Protocol):
    """Takes the values of ``METRICS``; tags are those of the metric, all of them."""

    def add(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Count up."""

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Put a value into a histogram."""

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""


class NoMeter:
    """Passes everything over."""

    def add(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Nothing."""

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Nothing."""

    def set(self, name: str, value: float) -> None:
        """Nothing."""
