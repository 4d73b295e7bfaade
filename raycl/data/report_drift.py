"""How the data of a version differ from those of a version before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from raycl import schema
from raycl.data.report import Change, Curve, Drift, Report
from raycl.data.report_items import ItemDrift, information


def none(reason: str) -> Drift:
    """That there is nothing to compare with, and why."""
    return Drift(against=None, reason=reason)


def compared(against: str, before: Report, now: Report, items: ItemDrift, settings: Iterable[str]) -> Drift:
    """What changed from the version ``against``, whose report is ``before``; ``settings`` are those that differ."""
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
            ("items", items.distance(before.items.total, now.items.total)),
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
        new_items=items.new,
        new_items_share=items.new_events / max(now.items.total, 1),
        gone_items=items.gone,
        gone_items_share=items.gone_events / max(before.items.total, 1),
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
    divergence = (information(first, mixture) + information(second, mixture)) / 2
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
