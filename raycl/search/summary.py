"""The tables that a search ends with: its trials, their curves, and what each field mattered."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from raycl.config_search import Space
from raycl.errors import RayclError
from raycl.search.board import Board
from raycl.search.trials import Trial

_MOST_GROUPS, _LEAST_TRIALS = 4, 3
"""Parts that the values of a range are cut into, and how many trials each has."""


def trials(board: Board, tried: Sequence[Trial]) -> pl.DataFrame:
    """A row a trial, the best first: finished ones by their value, then stopped and failed ones by theirs.

    ``value`` and ``deviation`` are over folds; ``epochs`` is how many the first fold finished; the searched fields are
    columns of their own, as JSON where they are neither numbers nor text.
    """
    rows = [_row(board, trial) for trial in tried]
    order = {"finished": 0, "stopped": 1, "failed": 2}
    rows.sort(
        key=lambda row: (order[row["status"]], -math.inf if row["value"] is None else -row["value"], row["trial"])
    )
    kinds = {"deviation": pl.Float64, "value": pl.Float64, "users": pl.Int64, "epochs": pl.Int64, "towers": pl.String}
    return pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None, strict=False)


def best(table: pl.DataFrame) -> int:
    """The number of the best finished trial; RayclError where there is none."""
    if table["status"][0] != "finished":
        reasons = sorted(set(table.filter(pl.col("status") == "failed")["reason"]))
        raise RayclError(f"no trial of the search finished: {'; '.join(reasons)}")
    return int(table["trial"][0])


def curves(board: Board) -> pl.DataFrame:
    """What each trial's first fold measured after each epoch: ``trial``, ``epoch``, ``value``."""
    rows = [
        {"trial": number, "epoch": epoch, "value": value}
        for number, curve in sorted(board.curves.items())
        for epoch, value in sorted(curve.items())
    ]
    return pl.DataFrame(rows, schema={"trial": pl.Int64, "epoch": pl.Int64, "value": pl.Float64})


def fields(board: Board, tried: Sequence[Trial], spaces: Mapping[str, Space]) -> pl.DataFrame:
    """By field and group of its values: how many ``trials``, their ``mean`` and ``best``, and the field's ``share``.

    The values of a range are cut into up to four groups of about equal size, of at least three trials each. The share
    is how much of the variance of the trials' values the groups explain, less what they would by chance (epsilon
    squared, Kelley 1935): near 0 the field mattered little beside the others. Trials that were given up count with
    their last value.
    """
    measured = [(trial, value) for trial in tried if (value := board.value(trial.number)) is not None]
    rows = []
    for name, space in spaces.items():
        groups = _groups([(trial.values[name], value) for trial, value in measured], cut=space.choice is None)
        share = _share(list(groups.values()))
        rows += [
            {
                "field": name,
                "value": group,
                "trials": len(values),
                "mean": float(np.mean(values)),
                "best": max(values),
                "share": share,
            }
            for group, values in groups.items()
        ]
    kinds = {"field": pl.String, "value": pl.String, "trials": pl.Int64}
    table = pl.DataFrame(rows, schema={**kinds, "mean": pl.Float64, "best": pl.Float64, "share": pl.Float64})
    return table.sort("share", "field", descending=[True, False], maintain_order=True)


def _row(board: Board, trial: Trial) -> dict[str, Any]:
    outcome = board.outcomes[trial.number]
    measured = [fold["value"] for fold in outcome["folds"]]
    return {
        "trial": trial.number,
        "status": outcome["status"],
        "value": board.value(trial.number),
        "deviation": float(np.std(measured, ddof=1)) if len(measured) > 1 else None,
        "epochs": max(board.curves.get(trial.number, {0: 0.0})),
        "users": outcome["folds"][0]["users"] if measured else None,
        **{name: _cell(value) for name, value in trial.values.items()},
        "seconds": float(outcome["seconds"]),
        "towers": outcome["folds"][0]["towers"] if measured else None,
        "reason": outcome["reason"],
    }


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float, str)) else json.dumps(value)


def _groups(measured: Sequence[tuple[Any, float]], *, cut: bool) -> dict[str, list[float]]:
    """What trials came to, by the value that they had or the part of the range that it is in, in order of values."""
    found: dict[str, list[float]] = {}
    if not cut:
        for given, value in sorted(measured, key=lambda pair: _sortable(pair[0])):
            found.setdefault(str(_cell(given)), []).append(value)
        return found
    in_order = sorted(measured, key=lambda pair: float(pair[0]))
    num_parts = max(1, min(_MOST_GROUPS, len(in_order) // _LEAST_TRIALS))
    for part in range(num_parts):
        inside = in_order[len(in_order) * part // num_parts : len(in_order) * (part + 1) // num_parts]
        if inside:
            name = f"{inside[0][0]:.4g} to {inside[-1][0]:.4g}"
            found.setdefault(name, []).extend(value for _, value in inside)
    return found


def _sortable(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, (int, float))
    return not is_number, float(value) if is_number else 0.0, str(value)


def _share(groups: Sequence[Sequence[float]]) -> float:
    """Of the variance of all values, the part between the groups, less what chance would give them; 0 to 1."""
    everything = np.array([value for group in groups for value in group])
    if len(everything) <= len(groups):
        return 0.0
    total = float(((everything - everything.mean()) ** 2).sum())
    within = sum(float(((np.array(group) - np.mean(group)) ** 2).sum()) for group in groups)
    if total == 0.0:
        return 0.0
    freedom = (len(everything) - 1) / (len(everything) - len(groups))
    return max(0.0, 1.0 - within / total * freedom)
