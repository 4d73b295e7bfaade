"""Milliseconds, ranges of them, and the dates that partitions name."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.config import LogSource
from raycl.data.times import DAY_MS, TimeRange, date_span, to_ms
from tests.data.builders import many_cases

FEBRUARY = datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC)
FEBRUARY_MS = 1_769_904_000_000


def test_a_range_is_in_milliseconds_and_open_where_nothing_is_said() -> None:
    def within(**bounds: datetime.datetime) -> TimeRange | None:
        return TimeRange.of(LogSource.model_validate({"uri": "log", **bounds}))

    assert within() is None
    assert within(since=FEBRUARY) == TimeRange(since_ms=FEBRUARY_MS)
    assert within(until=FEBRUARY) == TimeRange(until_ms=FEBRUARY_MS)
    assert within(since=datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) == TimeRange(since_ms=0)


@given(st.lists(st.integers(0, 20), min_size=1), st.integers(0, 20), st.integers(0, 20))
@many_cases
def test_a_span_misses_a_range_where_every_time_in_it_is_outside(times: list[int], since: int, until: int) -> None:
    wanted = TimeRange(since, until)
    outside = wanted.outside(np.array(times, dtype=np.int64))
    assert outside.tolist() == [not since <= time < until for time in times]
    span = np.arange(min(times), max(times) + 1)
    if since < until:
        assert wanted.misses(min(times), max(times)) == bool(wanted.outside(span).all())


@pytest.mark.parametrize(
    ("parts", "first", "days"),
    [
        (["2026"], "2026-01-01", 365),
        (["2024-02"], "2024-02-01", 29),
        (["202402"], "2024-02-01", 29),
        (["2026-01-31"], "2026-01-31", 1),
        (["20260131"], "2026-01-31", 1),
        (["9999-12-31"], "9999-12-31", 1),
        (["2026-01-31-06"], "2026-01-31T06", 1 / 24),
        (["2026-01-31T06"], "2026-01-31T06", 1 / 24),
        (["2026013106"], "2026-01-31T06", 1 / 24),
        (["2026", "1"], "2026-01-01", 31),
        (["2026", "01", "5"], "2026-01-05", 1),
        (["2026", "12", "31", "23"], "2026-12-31T23", 1 / 24),
        (["2026-01-31", "7"], "2026-01-31T07", 1 / 24),
    ],
)
def test_partition_values_name_a_span(parts: list[str], first: str, days: float) -> None:
    start = int(np.datetime64(first, "ms").astype(np.int64))
    assert date_span(parts) == (start, start + round(days * DAY_MS) - 1)


@pytest.mark.parametrize(
    "parts", [["x"], [""], ["2026-13"], ["2026-02-30"], ["26-01-01"], ["2026-01-31 25"], ["2026", "x"], ["1.5"]]
)
def test_what_is_no_date_is_said(parts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        date_span(parts)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.floats(-1e300, 1e300), min_size=2, max_size=2),
    st.sampled_from(["s", "ms", "us", "ns", "order"]),
    st.booleans(),
)
@many_cases
def test_milliseconds_keep_the_order_of_numbers(values: list[float], unit: str, as_float: bool) -> None:
    numbers = (
        np.array(sorted(values), dtype=np.float64)
        if as_float
        else np.array(sorted(map(int, np.clip(values, -(2**62), 2**62))), dtype=np.int64)
    )
    first, second = to_ms(numbers, unit).tolist()
    assert first <= second or 0 in (first, second)
