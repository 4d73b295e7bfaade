"""Metrics and rankings of one user at a time, in plain Python: the slow truth that the stage is held to."""

from __future__ import annotations

import math
from collections.abc import Sequence

Lists = Sequence[Sequence[int]]


def metrics_of_user(ranked: Sequence[int], targets: set[int], k: int) -> dict[str, float]:
    """The four metrics of one ranked list at ``k``."""
    top = list(ranked[:k])
    places = [place for place, item in enumerate(top, start=1) if item in targets]
    gain = sum(1.0 / math.log2(place + 1) for place in places)
    ideal = sum(1.0 / math.log2(place + 1) for place in range(1, min(len(targets), k) + 1))
    return {
        f"recall_at_{k}": len(places) / len(targets),
        f"hit_rate_at_{k}": 1.0 if places else 0.0,
        f"ndcg_at_{k}": gain / ideal,
        f"mrr_at_{k}": 1.0 / places[0] if places else 0.0,
    }


def summary(ranked: Lists, targets: Sequence[set[int]], ks: Sequence[int], num_items: int) -> dict[str, float]:
    """Means over users with a target, half-widths of their intervals, and coverage."""
    judged = [(one, wanted) for one, wanted in zip(ranked, targets, strict=True) if wanted]
    found: dict[str, float] = {}
    for k in ks:
        rows = [metrics_of_user(one, wanted, k) for one, wanted in judged]
        for name in rows[0] if rows else ():
            values = [row[name] for row in rows]
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
            found[name] = mean
            found[f"{name}_ci"] = 1.96 * math.sqrt(variance / len(values))
        if rows:
            found[f"coverage_at_{k}"] = len({item for one, _ in judged for item in one[:k]}) / num_items
    return found


def rank(scores: Sequence[float], context: set[int]) -> list[int]:
    """Every item that is not in the context, the best first; equal scores by row."""
    return sorted(set(range(len(scores))) - context, key=lambda item: (-scores[item], item))
