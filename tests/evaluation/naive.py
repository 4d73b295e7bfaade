"""Metrics, rankings and baselines of one user at a time, in plain Python: the slow truth that the stage is held to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Lists = Sequence[Sequence[int]]


def metrics_of_user(ranked: Sequence[int], targets: set[int], k: int) -> dict[str, float]:
    """The accuracy of one ranked list at ``k``."""
    top = list(ranked[:k])
    places = [place for place, item in enumerate(top, start=1) if item in targets]
    gain = sum(1.0 / math.log2(place + 1) for place in places)
    most = min(len(targets), k)
    ideal = sum(1.0 / math.log2(place + 1) for place in range(1, most + 1))
    precisions = [(number + 1) / place for number, place in enumerate(places)]
    return {
        f"recall_at_{k}": len(places) / len(targets),
        f"precision_at_{k}": len(places) / k,
        f"hit_rate_at_{k}": 1.0 if places else 0.0,
        f"ndcg_at_{k}": gain / ideal,
        f"mrr_at_{k}": 1.0 / places[0] if places else 0.0,
        f"map_at_{k}": sum(precisions) / most,
    }


def auc(scores: Sequence[float], targets: set[int], context: set[int]) -> float:
    """Pairs of a target and another candidate in the right order, equal ones half; NaN where there are no pairs."""
    others = set(range(len(scores))) - context - targets
    pairs = [(scores[target], scores[other]) for target, other in itertools.product(targets, others)]
    right = sum(1.0 if mine > other else 0.5 if mine == other else 0.0 for mine, other in pairs)
    return right / len(pairs) if pairs else math.nan


def summary(ranked: Lists, targets: Sequence[set[int]], ks: Sequence[int], num_items: int) -> dict[str, float]:
    """Means over users with a target, coverage, and the Gini index of the items' places."""
    judged = [(one, wanted) for one, wanted in zip(ranked, targets, strict=True) if wanted]
    found: dict[str, float] = {}
    for k in ks:
        rows = [metrics_of_user(one, wanted, k) for one, wanted in judged]
        for name in rows[0] if rows else ():
            found[name] = sum(row[name] for row in rows) / len(rows)
        if rows:
            listed = [item for one, _ in judged for item in one[:k]]
            found[f"coverage_at_{k}"] = len(set(listed)) / num_items
            found[f"gini_at_{k}"] = gini([listed.count(item) for item in range(num_items)])
    return found


def gini(counts: Sequence[int]) -> float:
    """Mean difference of two counts over twice their mean."""
    differences = sum(abs(one - other) for one, other in itertools.product(counts, counts))
    return differences / (2 * len(counts) * sum(counts)) if sum(counts) else math.nan


def rank(scores: Sequence[float], context: set[int]) -> list[int]:
    """Every item that is not in the context, the best first; equal scores by row."""
    return sorted(set(range(len(scores))) - context, key=lambda item: (-scores[item], item))


def novelty(listed: Sequence[int], counts: Sequence[int]) -> float:
    """Mean of -log2 of the share of events, one event added to each item."""
    total = sum(counts) + len(counts)
    return sum(-math.log2((counts[item] + 1) / total) for item in listed) / len(listed)


def diversity(listed: Sequence[int], vectors: Sequence[Sequence[float]]) -> float:
    """1 less the mean cosine over pairs of unit vectors."""
    pairs = list(itertools.combinations(listed, 2))
    cosines = [sum(a * b for a, b in zip(vectors[one], vectors[other], strict=True)) for one, other in pairs]
    return 1.0 - sum(cosines) / len(pairs)


def calibration(listed: Sequence[int], history: Sequence[int], genres: Sequence[Sequence[str]]) -> float:
    """Steck's divergence with a smoothing of 0.01, logarithms to base 2."""

    def shares(items: Sequence[int]) -> dict[str, float]:
        found: dict[str, float] = {}
        for item in items:
            for genre in genres[item]:
                found[genre] = found.get(genre, 0.0) + 1.0 / len(genres[item])
        total = sum(found.values())
        return {genre: share / total for genre, share in found.items()}

    wanted, held = shares(history), shares(listed)
    if not wanted or not held:
        return math.nan
    return sum(p * math.log2(p / (0.99 * held.get(genre, 0.0) + 0.01 * p)) for genre, p in wanted.items())
