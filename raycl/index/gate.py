"""Whether a release may be published: a decision with its reason, from measured evidence alone."""

from __future__ import annotations

from dataclasses import dataclass

from raycl.config import GateConfig


@dataclass(frozen=True)
class Evidence:
    """What was measured of a release."""

    index_recall: float
    num_queries: int
    recall: float
    """Of the towers on the evaluation's ``part``, at ``recall_at`` items."""
    popularity_recall: float
    recall_at: int
    part: str
    num_items: int
    num_vectors: int
    """Items that the index holds; those with vectors that are not finite are left out."""


@dataclass(frozen=True)
class Verdict:
    """``reason`` tells every measure beside its floor, the failed ones first where there are any."""

    publish: bool
    reason: str


def decide(evidence: Evidence, config: GateConfig) -> Verdict:
    """Publish only where every measure reaches its floor."""
    if evidence.popularity_recall:
        over = evidence.recall / evidence.popularity_recall
    else:
        over = float("inf") if evidence.recall else 0.0
    checks = [
        (
            f"index recall@{config.index_recall_at}",
            evidence.index_recall,
            config.min_index_recall,
            f" on {evidence.num_queries:,} queries",
        ),
        (f"recall@{evidence.recall_at}", evidence.recall, config.min_recall, f" on the {evidence.part} part"),
        ("recall over popularity", over, config.min_over_popularity, " times"),
        (
            "indexed share of items",
            evidence.num_vectors / max(evidence.num_items, 1),
            1.0,
            f" of {evidence.num_items:,}",
        ),
    ]
    # Not `value < floor`: what is not a number must fail too.
    failed = [f"{name} {value:.4f} < {floor:g}{unit}" for name, value, floor, unit in checks if not value >= floor]
    if failed:
        return Verdict(False, "; ".join(failed))
    return Verdict(True, "; ".join(f"{name} {value:.4f} >= {floor:g}{unit}" for name, value, floor, unit in checks))
