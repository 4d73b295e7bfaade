"""Days put together into weeks, months or years, as many as a table or a figure can show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from raycl.data.report import Day

_UNITS: dict[str, Callable[[date], date]] = {
    "day": lambda day: day,
    "week": lambda day: day - timedelta(days=min(day.weekday(), (day - date.min).days)),
    "month": lambda day: day.replace(day=1),
    "year": lambda day: day.replace(month=1, day=1),
}
"""The first day of the period that a day is in; weeks begin on Monday."""


@dataclass(frozen=True)
class Period:
    """Rows and events of some days that follow each other."""

    first: date
    rows: int
    events: int


def periods(days: Sequence[Day], most: int) -> tuple[str, list[Period]]:
    """The finest unit that makes at most ``most`` periods with rows, or years, and those periods."""
    by_unit = ((unit, {start_of(day.day) for day in days}) for unit, start_of in _UNITS.items())
    unit = next((unit for unit, starts in by_unit if len(starts) <= most), "year")
    found: dict[date, list[int]] = {}
    for day in days:
        counts = found.setdefault(_UNITS[unit](day.day), [0, 0])
        counts[0] += day.rows
        counts[1] += day.events
    return unit, [Period(first, *counts) for first, counts in found.items()]


def central(days: Sequence[Day], left_out: float = 0.001) -> Sequence[Day]:
    """The days without the outermost at either end, which hold at most this share of the rows there.

    A few rows of the year 1970 would press all others into one line.
    """
    allowed = left_out * sum(day.rows for day in days)
    first, last = 0, len(days)
    for step, places in ((1, range(len(days))), (-1, range(len(days) - 1, -1, -1))):
        lost = 0
        for place in places:
            lost += days[place].rows
            if lost > allowed:
                break
            first, last = (place + 1, last) if step > 0 else (first, place)
    return days[first:last] if first < last else days


def without_gaps(days: Sequence[Day]) -> list[Day]:
    """The same days, and those between them without rows."""
    if not days:
        return []
    known = {day.day: day for day in days}
    span = (days[-1].day - days[0].day).days + 1
    every = (days[0].day + timedelta(days=number) for number in range(span))
    return [known.get(day, Day(day=day, rows=0, events=0)) for day in every]
