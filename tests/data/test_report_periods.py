"""Days as weeks, months and years: nothing is lost, and few rows far off do not hide the rest."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.data.report import Day
from raycl.data.report_periods import central, periods, without_gaps
from tests.data.builders import few_cases


def logs(last: date) -> st.SearchStrategy[list[Day]]:
    """Days from 1970 on up to the last, in order, with any numbers of rows and events."""
    counts = st.tuples(st.integers(0, 50), st.integers(0, 50))
    return st.dictionaries(st.dates(date(1970, 1, 1), last), counts, max_size=60).map(
        lambda days: [Day(day=day, rows=rows, events=events) for day, (rows, events) in sorted(days.items())]
    )


def run(first: date, num_days: int) -> list[Day]:
    return [Day(day=first + timedelta(days=number), rows=10, events=9) for number in range(num_days)]


@few_cases
@given(logs(date(2030, 1, 1)), st.integers(1, 40))
def test_no_row_is_lost(days: list[Day], most: int) -> None:
    unit, found = periods(days, most)
    assert sum(one.rows for one in found) == sum(day.rows for day in days)
    assert sum(one.events for one in found) == sum(day.events for day in days)
    assert [one.first for one in found] == sorted({one.first for one in found})
    assert len(found) <= most or unit == "year"


@pytest.mark.parametrize(
    ("num_days", "unit", "number", "first"),
    [
        (31, "day", 31, date(2025, 1, 1)),
        (32, "week", 5, date(2024, 12, 30)),
        (366, "month", 13, date(2025, 1, 1)),
        (1_100, "year", 4, date(2025, 1, 1)),
    ],
)
def test_the_finest_unit_that_fits_is_taken(num_days: int, unit: str, number: int, first: date) -> None:
    found_unit, found = periods(run(date(2025, 1, 1), num_days), 31)
    assert (found_unit, len(found), found[0].first) == (unit, number, first)


@few_cases
@given(logs(date(1970, 7, 1)))
def test_days_between_are_there_without_rows(days: list[Day]) -> None:
    found = without_gaps(days)
    assert [day for day in found if day in days] == days
    assert all(day.rows == day.events == 0 for day in found if day not in days)
    assert [day.day for day in found] == [found[0].day + timedelta(days=n) for n in range(len(found))] if days else True


def test_a_few_rows_far_off_are_left_out_of_the_middle() -> None:
    stray = [Day(day=date(1970, 1, 2), rows=1, events=1), Day(day=date(2001, 1, 1), rows=1, events=0)]
    usual = run(date(2025, 1, 1), 300)
    later = [Day(day=date(2030, 1, 1), rows=2, events=0)]
    assert list(central([*stray, *usual, *later])) == usual
    assert list(central(usual)) == usual
    assert list(central(stray)) == stray
