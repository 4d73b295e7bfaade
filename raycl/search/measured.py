"""What a training measured on its validation part, as a search compares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raycl.errors import InputError
from raycl.storage.versions import Version

Points = Sequence[Mapping[str, float]]
"""Validations as ``training.curve.plain`` tells them, in their order."""


def kept(version: Version, metric: str) -> dict[str, Any]:
    """The towers' name, and ``value``, ``users`` and ``epoch`` of the validation whose towers were kept.

    InputError where nothing was validated.
    """
    facts = version.manifest.facts
    points = [point for point in facts["validation"] if point["step"] == facts["kept_step"]]
    if not points:
        raise InputError(
            f"search.metric={metric}: towers {version.name} were not validated, since the validation part of their"
            f" pairs has no user with an item to find: look at pairs.split and pairs.min_user_events"
        )
    point = points[0]
    return {"towers": version.name, "value": value(point, metric), "users": point["users"], "epoch": point["epoch"] + 1}


def value(point: Mapping[str, float], metric: str) -> float:
    """Of one validation, the metric that is called as ``recall_at_20``."""
    return float(point[metric.partition("_")[0]])


def curve(points: Points, metric: str, *, last: bool) -> dict[int, float]:
    """By number of finished epochs: the newest value where the ``last`` towers are kept, else the best so far."""
    found: dict[int, float] = {}
    highest = float("-inf")
    for point in points:
        highest = value(point, metric) if last else max(value(point, metric), highest)
        found[int(point["epoch"]) + 1] = highest
    return found
