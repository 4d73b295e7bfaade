"""Times of events: whole milliseconds since 1970 in UTC, and ranges of them that include their start alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raycl.config import LogSource

DAY_MS = 86_400_000
_UNIT_PER_MS = {"s": 1000, "ms": 1, "us": -1000, "ns": -1_000_000, "order": 1000}
_MOST = 2**62  # a float of more might not fit once it is rounded
_DATE = re.compile(r"(\d{4})(?:-?(\d{2})(?:-?(\d{2})(?:[-T_ ]?(\d{2}))?)?)?")


@dataclass(frozen=True)
class TimeRange:
    """The times from ``since_ms`` on and before ``until_ms``."""

    since_ms: int = -_MOST
    until_ms: int = _MOST

    @classmethod
    def of(cls, log: LogSource) -> TimeRange | None:
        """The range that a log is read in; None where it is read whole."""
        bounds = {"since_ms": log.since, "until_ms": log.until}
        given = {name: round(moment.timestamp() * 1000) for name, moment in bounds.items() if moment is not None}
        return cls(**given) if given else None

    def misses(self, first_ms: int, last_ms: int) -> bool:
        """Whether no time from ``first_ms`` to ``last_ms``, both included, lies within."""
        return last_ms < self.since_ms or first_ms >= self.until_ms

    def outside(self, times_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Of each time, whether it lies outside."""
        return (times_ms < self.since_ms) | (times_ms >= self.until_ms)


def to_ms(times: npt.NDArray[np.number], unit: str) -> npt.NDArray[np.int64]:
    """Whole milliseconds of numbers in ``unit``; what does not fit 64 bits or is no number becomes 0.

    A greater number never becomes a smaller time, but for those that become 0. In the unit ``order`` 0 is the first
    second after 1970 began, 1 the next one, and so on.
    """
    per_ms, first = _UNIT_PER_MS[unit], int(unit == "order")
    if times.dtype.kind == "f":
        values = np.clip(np.nan_to_num(times.astype(np.float64), nan=-first), -_MOST, _MOST)
    else:
        values = times.astype(np.int64)
    if per_ms < 0:
        return (values // -per_ms).astype(np.int64)
    limit = _MOST // per_ms
    if values.size and (values.min() < -limit or values.max() > limit):
        values = np.where((values >= -limit) & (values <= limit), values, -first)
    return np.asarray((values + first) * per_ms, dtype=np.int64)


def date_span(parts: Sequence[str]) -> tuple[int, int]:
    """First and last millisecond of the year, month, day or hour that partition values name together.

    One value is ``2026``, ``2026-01``, ``2026-01-31`` or ``2026-01-31-06``, also without the dashes; several are year,
    month, day and hour. Raises ValueError for anything else.
    """
    text = parts[0] if len(parts) == 1 else "-".join([parts[0], *(part.zfill(2) for part in parts[1:])])
    matched = _DATE.fullmatch(text)
    if matched is None:
        raise ValueError(f"{text} is no date")
    year, month, day, hour = matched.groups()
    named = "-".join(part for part in (year, month, day) if part is not None)
    moment = np.datetime64(named if hour is None else f"{named}T{hour}")
    first, end = (bound.astype("datetime64[ms]").astype(np.int64) for bound in (moment, moment + 1))
    return int(first), int(end) - 1
