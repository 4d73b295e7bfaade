"""The validations of a run so far, and what they decide; nothing else does, so a resumed run decides the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from raycl.config_validation import EarlyStop


class Point(NamedTuple):
    """One validation."""

    epoch: int
    """The epoch that was under way, from 0."""
    step: int
    """Steps taken in all epochs."""
    recall: float
    ndcg: float
    users: int
    """How many users were measured."""


Curve = Sequence[Point]


def plain(point: Point, k: int) -> dict[str, float]:
    """What listeners and manifests are told of a point, whose lists were of length ``k``."""
    return {"k": k, **point._asdict()}


def best(curve: Curve) -> Point | None:
    """The point with the best recall, then the best NDCG, then the most training; None without any."""
    return max(curve, key=lambda point: (point.recall, point.ndcg, point.step), default=None)


def num_plateaus(curve: Curve, patience: int, min_gain: float) -> int:
    """How often ``patience`` points in a row brought no gain; the count begins anew after each plateau and each gain.

    A gain is a recall of more than ``min_gain`` above that of the last gain.
    """
    found, waited, highest = 0, 0, float("-inf")
    for point in curve:
        if point.recall > highest + min_gain:
            highest, waited = point.recall, 0
        else:
            waited += 1
        if waited == patience:
            found, waited = found + 1, 0
    return found


def reason_to_stop(curve: Curve, rule: EarlyStop | None) -> str | None:
    """Why training should end now, in words; None where it should go on."""
    top = best(curve)
    if rule is None or top is None or not num_plateaus(curve, rule.patience, rule.min_gain):
        return None
    gain = f" of more than {rule.min_gain:g}" if rule.min_gain else ""
    waited = "1 validation" if rule.patience == 1 else f"{rule.patience} validations"
    return (
        f"no gain{gain} in {waited} after step {curve[-rule.patience - 1].step:,};"
        f" the best recall is {top.recall:.4f}, at step {top.step:,}"
    )
