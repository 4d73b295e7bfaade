"""What each recipe is measured by, and how an evaluation becomes rows of the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.results import Row

TOWERS = "towers"
Figures = Mapping[str, Mapping[str, float]]
"""By model and metric, means over all users."""


@dataclass(frozen=True)
class Case:
    """One data set: its recipe under ``jobs/recipes``, and by metric the least figure that is aimed at."""

    name: str
    title: str
    goals: Mapping[str, float]


CASES = {
    case.name: case
    for case in (
        Case("gowalla", "Gowalla", {"recall_at_20": 0.190, "ndcg_at_20": 0.160}),
        Case("beauty", "Amazon Beauty", {"recall_at_10": 0.093, "ndcg_at_10": 0.053}),
        Case("movies", "MovieLens-1M", {"hit_rate_at_10": 0.115}),
    )
}


def rows(case: Case, figures: Figures, size: str) -> list[Row]:
    """The claims of one evaluation: the towers beside the goal, and beside each baseline of the same run.

    All models of one evaluation rank the same users by one protocol, so their figures are comparable (``equal``).
    """
    made = []
    for metric, goal in case.goals.items():
        ours = figures[TOWERS][metric]
        made.append(Row(f"{case.title}, the goal", size, ours, goal, metric, ours / goal, 1.0, equal=True))
        for model, found in figures.items():
            if model.startswith(TOWERS):
                continue
            peer = found[metric]
            ratio = ours / peer if peer else float("inf")
            made.append(Row(f"{case.title} beside {model}", size, ours, peer, metric, ratio, None, equal=True))
    return made


def table(case: Case, facts: Mapping[str, Any]) -> str:
    """Every model's goal metrics with their intervals, as Markdown; ``facts`` are those of the evaluation."""
    metrics = list(case.goals)
    lines = [f"| {case.title} | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for model in facts["models"]:
        cells = []
        for metric in metrics:
            low, high = facts["intervals"][model][metric]
            cells.append(f"{facts[model][metric]:.4f} ({low:.4f} to {high:.4f})")
        lines.append(f"| {model} | {' | '.join(cells)} |")
    lines += [f"\nLeft out: {model}, since {reason}." for model, reason in facts["left_out"].items()]
    return "\n".join(lines)
