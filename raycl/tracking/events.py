"""What a training run tells of itself, as plain mappings that any sink can take, and as JSON lines.

Every event has ``kind``, ``step`` (steps taken in all epochs) and ``time`` (seconds since 1970):

- ``start``: the run begins, or goes on after ``step``; whatever was told of later steps before it does not count;
- ``step``: also ``epoch`` from 0, and numbers by name, such as ``loss``;
- ``validation``: also ``epoch``, ``k``, ``recall``, ``ndcg`` and ``users``.

A number that was not finite is None.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

Event = Mapping[str, Any]

NOT_NUMBERS = frozenset({"kind", "step", "time", "epoch", "k", "users"})
"""Fields that are no curve of their own."""


class Sink(Protocol):
    """Where events go, in the order of time."""

    def put(self, event: Event) -> None:
        """Take one event; it may wait until the next ``flush``."""

    def flush(self) -> None:
        """Pass on what was taken."""

    def close(self, *, finished: bool) -> None:
        """Pass on what was taken; the run is ``finished``, or has ended early."""


def counted(events: Iterable[Event]) -> list[Event]:
    """The events that count, without starts, in the order of their steps.

    Of a step that a resumed run took twice only the last time counts, and so of two events of one kind and step.
    """
    found: dict[tuple[int, str], Event] = {}
    for event in events:
        step = int(event["step"])
        if event["kind"] == "start":
            found = {key: kept for key, kept in found.items() if key[0] <= step}
        else:
            found[step, str(event["kind"])] = event
    return [found[key] for key in sorted(found)]


def scalars(event: Event) -> dict[str, float]:
    """The numbers of an event by the names of their curves: ``train/loss``, ``validation/recall_at_20``."""
    if event["kind"] == "start":
        return {}
    folder, ending = ("validation", f"_at_{event['k']}") if event["kind"] == "validation" else ("train", "")
    numbers = {name: value for name, value in event.items() if name not in NOT_NUMBERS and value is not None}
    return {f"{folder}/{name}{ending}": float(value) for name, value in numbers.items()}


def to_lines(events: Iterable[Event]) -> bytes:
    """One JSON object a line."""
    return "".join(f"{json.dumps(event, allow_nan=False)}\n" for event in events).encode()


def from_lines(content: bytes) -> list[Event]:
    """What ``to_lines`` wrote; ValueError where it is something else."""
    return [json.loads(line) for line in content.splitlines()]
