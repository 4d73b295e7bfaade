"""What a person sees of an evaluation or a comparison, as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from raycl.evaluation import per_user
from raycl.evaluation.comparison import Evaluation

_HEADLINES = ("recall", "ndcg", "hit_rate", "mrr", "map", "coverage")


def models(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Everything that was measured at the largest k, a row a model; what was left out comes last, with the reason."""
    k = max(evaluation.protocol.ks)
    found = evaluation.metrics.filter(pl.col("segment") == per_user.ALL)
    values = {(model, metric): value for model, metric, value in found.select("model", "metric", "value").iter_rows()}
    names = [f"{name}_at_{k}" for name in _HEADLINES]
    names += ["auc"] if "auc" in evaluation.protocol.metrics else []
    facts = evaluation.version.manifest.facts
    chosen = facts.get("baseline_settings", {})
    rows: list[dict[str, Any]] = []
    for model in evaluation.models:
        figures = {name: _number(values.get((model, name))) for name in names}
        rows.append({"model": _named(model, chosen.get(model, {})), **figures})
    left_out = facts["left_out"].items()
    return rows + [{"model": f"{name}: {why}"} | dict.fromkeys(names, "") for name, why in left_out]


def segments(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Recall of the towers at the largest k in every segment, with its interval."""
    metric = f"recall_at_{max(evaluation.protocol.ks)}"
    found = evaluation.metrics.filter((pl.col("model") == "towers") & (pl.col("metric") == metric))
    return [
        {"segment": row["segment"], "users": f"{row['users']:,}", metric: row["value"], "95 %": _interval(row)}
        for row in found.to_dicts()
    ]


def compared(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """A comparison as a person reads it."""
    return [
        {
            "segment": row["segment"],
            "metric": row["metric"],
            "first": row["first"],
            "second": row["second"],
            "difference": row["difference"],
            "95 %": _interval(row),
            "users": f"{row['users']:,}",
            "p": row["p"],
            "p_corrected": row["p_corrected"],
        }
        for row in frame.to_dicts()
    ]


def _named(model: str, settings: Mapping[str, float]) -> str:
    """A model with what was chosen for it on this log."""
    said = ", ".join(f"{name} {value:g}" for name, value in settings.items())
    return f"{model} ({said})" if said else model


def _interval(row: dict[str, Any]) -> str:
    return "" if row["low"] is None else f"{row['low']:.4f} to {row['high']:.4f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
