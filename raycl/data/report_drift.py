"""How the data of a version differ from those of a version before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from raycl import schema
from raycl.data.report import Change, Curve, Drift, Report

Floats = npt.NDArray[np.float64]


def none(reason: str) -> Drift:
    """That there is nothing to compare with, and why."""
    return Drift(against=None, reason=reason)


def compared(
    against: str, before: Report, now: Report, items_before: pa.Table, items_now: pa.Table, settings: Iterable[str]
) -> Drift:
    """What changed from the version ``against``, whose report is ``before``.

    The tables hold ``item`` and ``log_count`` of each vocabulary; ``settings`` are those that differ.
    """
    counts_before, counts_now = _side_by_side(items_before, items_now)
    new, gone = (counts_before == 0) & (counts_now > 0), (counts_before > 0) & (counts_now == 0)
    days_before = {day.day: day.rows for day in before.days.counts if day.rows}
    days_now = {day.day: day.rows for day in now.days.counts if day.rows}
    common = days_before.keys() & days_now.keys()
    types = _paired(_types(before), _types(now))
    return Drift(
        against=against,
        reason="",
        config=tuple(settings),
        sizes=_paired(_sizes(before), _sizes(now)),
        distances=(
            ("event types", _between(_types(before), _types(now))),
            ("items", js_distance(counts_before, counts_now)),
            ("events a user", _between(_octaves(before.users), _octaves(now.users))),
            *(
                (f"history lengths, {one.part}", _between(_octaves(two.history), _octaves(one.history)))
                for one, two in zip(now.parts, before.parts, strict=True)
            ),
        ),
        types=types,
        nulls=_paired({one.column: one.share for one in before.nulls}, {one.column: one.share for one in now.nulls}),
        dropped=_paired(
            {one.reason: one.share for one in before.dropped}, {one.reason: one.share for one in now.dropped}
        ),
        new_items=int(new.sum()),
        new_items_share=_share(counts_now, new),
        gone_items=int(gone.sum()),
        gone_items_share=_share(counts_before, gone),
        common_days=len(common),
        common_days_rows=Change(
            measure="rows of days in both",
            before=sum(days_before[day] for day in common),
            now=sum(days_now[day] for day in common),
        ),
    )


def js_distance(before: npt.NDArray[Any], now: npt.NDArray[Any]) -> float:
    """Jensen-Shannon distance to base 2 of two rows of counts, each divided by its sum: from 0 (equal) to 1.

    The square root of the mean divergence from the mixture (Endres and Schindelin 2003). Counts that are all 0 are like
    others that are, and unlike any that are not.
    """
    totals = float(before.sum()), float(now.sum())
    if not all(totals):
        return float(any(totals))
    first, second = before / totals[0], now / totals[1]
    mixture = (first + second) / 2
    divergence = (_information(first, mixture) + _information(second, mixture)) / 2
    return float(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def differing(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ between two trees of plain values."""
    found: list[str] = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differing(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}")
    return found


def _information(shares: Floats, mixture: Floats) -> float:
    """The Kullback-Leibler divergence of the mixture from the shares, in bits."""
    some = shares > 0
    return float(np.sum(shares[some] * np.log2(shares[some] / mixture[some])))


def _side_by_side(before: pa.Table, now: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Counts of every item of either table, in both; ids of another type are other items."""
    counts = [table["log_count"].to_numpy() for table in (before, now)]
    if before.schema.field("item").type != now.schema.field("item").type:
        return np.append(counts[0], np.zeros_like(counts[1])), np.append(np.zeros_like(counts[0]), counts[1])
    frames = [pl.from_arrow(table.select(["item", "log_count"])) for table in (before, now)]
    assert isinstance(frames[0], pl.DataFrame)
    assert isinstance(frames[1], pl.DataFrame)
    joined = frames[0].join(frames[1], on="item", how="full", coalesce=True)
    found = (joined[name].fill_null(0).to_numpy() for name in ("log_count", "log_count_right"))
    first, second = found
    return first, second


def _between(before: Mapping[Any, float], now: Mapping[Any, float]) -> float:
    keys = sorted(before.keys() | now.keys())
    return js_distance(*(np.array([side.get(key, 0) for key in keys], dtype=np.float64) for side in (before, now)))


def _paired(before: Mapping[str, float], now: Mapping[str, float]) -> tuple[Change, ...]:
    """Every measure of either side, in the order of this version."""
    return tuple(
        Change(measure=measure, before=before.get(measure, 0), now=now.get(measure, 0)) for measure in {**now, **before}
    )


def _types(report: Report) -> dict[str, float]:
    return {one.type: one.events_share for one in report.types.named}


def _octaves(curve: Curve) -> dict[int, float]:
    return {octave.first: octave.number for octave in curve.octaves}


def _sizes(report: Report) -> dict[str, float]:
    num_days = {
        "rows": sum(day.rows > 0 for day in report.days.counts),
        "events": sum(day.events > 0 for day in report.days.counts),
    }
    return {
        "rows": report.rows,
        "events": report.events,
        "rows a day": (report.rows - report.days.undated_rows) / max(num_days["rows"], 1),
        "events a day": (report.events - report.days.undated_events) / max(num_days["events"], 1),
        "users": report.users.number,
        "items": report.items.number,
        **{f"{part} pairs": one.pairs for part, one in zip(schema.SPLITS, report.parts, strict=True)},
    }


def _share(counts: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]) -> float:
    total = int(counts.sum())
    return float(counts[chosen].sum() / total) if total else 0.0
