"""How a version differs from the one before: not at all from itself, and by the numbers from another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.data.report import Change, Drift
from raycl.data.report_drift import compared, differing, js_distance, none
from tests.data.builders import few_cases
from tests.data.reports import ITEMS, drifted, histogram, kept, made, rows, vocabulary

COUNTS = st.lists(st.integers(0, 1_000), min_size=5, max_size=5).map(lambda counts: np.array(counts))


def named(changes: tuple[Change, ...]) -> dict[str, tuple[float, float]]:
    return {one.measure: (one.before, one.now) for one in changes}


def test_a_version_does_not_drift_from_itself() -> None:
    found = compared("itself", made(), made(), drifted(ITEMS, ITEMS), [])
    assert (found.against, found.config) == ("itself", ())
    assert {distance for _, distance in found.distances} == {0.0}
    groups = (found.sizes, found.types, found.nulls, found.dropped)
    assert all(one.before == one.now for group in groups for one in group)
    assert (found.new_items, found.gone_items, found.new_items_share, found.gone_items_share) == (0, 0, 0.0, 0.0)
    assert found.common_days == 2
    assert found.common_days_rows == Change(measure="rows of days in both", before=1_230, now=1_230)


def test_a_changed_log_drifts_by_these_numbers() -> None:
    read = rows({19_701: 200, 19_702: 600}, nulls={"user": [617, 1_234]})
    events = kept(days={19_701: 71, 19_702: 800}, types=(70, 101, 700), users=histogram([2] * 4))
    items = vocabulary({12: 150, 14: 30, 15: 20})
    now = made(read, events, items, dropped={"robot_user": 617})
    found = compared("older", made(), now, drifted(ITEMS, items), ["seed"])
    assert found.config == ("seed",)
    assert min(distance for name, distance in found.distances if "history" not in name) > 0.3
    assert (found.new_items, found.new_items_share) == (2, 0.25)
    assert (found.gone_items, found.gone_items_share) == (2, 721 / 871)
    assert named(found.nulls) == {"user": (5 / 1_234, 0.5), "time": (3 / 1_234, 0), "event": (17 / 1_234, 0)}
    assert named(found.dropped)["robot_user"] == (0, 0.5)
    assert named(found.dropped)["duplicate"] == (269 / 1_234, 0)
    assert named(found.types)["view"] == (700 / 871, 70 / 871)
    assert named(found.sizes)["rows a day"] == (615, 615)
    assert named(found.sizes)["items"] == (4, 3)
    assert found.common_days == 1
    assert found.common_days_rows == Change(measure="rows of days in both", before=230, now=200)


def test_ids_of_another_type_are_other_items() -> None:
    words = vocabulary({"11": 700, "12": 171})
    found = compared("older", made(), made(items=words), drifted(ITEMS, words), [])
    assert dict(found.distances)["items"] == 1.0
    assert (found.new_items, found.gone_items) == (2, 3)


def test_the_order_of_the_vocabulary_does_not_matter() -> None:
    turned = ITEMS.take(pa.array([2, 0, 3, 1]))
    assert dict(compared("older", made(), made(), drifted(turned, ITEMS), []).distances)["items"] == 0.0


def test_without_another_version_the_reason_is_all() -> None:
    assert none("there is none") == Drift(against=None, reason="there is none")


@few_cases
@given(COUNTS, COUNTS)
def test_the_distance_is_the_root_of_the_mean_divergence_from_the_mixture(one: Any, two: Any) -> None:
    found = js_distance(one, two)
    assert found == pytest.approx(js_distance(two, one))
    assert found == pytest.approx(js_distance(one * 3, two), abs=1e-7)
    assert js_distance(one, one) == 0.0
    if one.sum() and two.sum():
        naive = 0.0
        for first, second in zip(one / one.sum(), two / two.sum(), strict=True):
            middle = (first + second) / 2
            naive += sum(share * np.log2(share / middle) / 2 for share in (first, second) if share)
        assert found == pytest.approx(max(naive, 0.0) ** 0.5, abs=1e-7)


@pytest.mark.parametrize(
    ("one", "two", "distance"), [([1, 0], [0, 5], 1.0), ([0, 0], [0, 0], 0.0), ([0, 0], [1, 0], 1.0), ([], [], 0.0)]
)
def test_nothing_in_common_is_a_distance_of_one(one: list[int], two: list[int], distance: float) -> None:
    assert js_distance(np.array(one), np.array(two)) == distance


def test_settings_that_differ_have_dotted_names() -> None:
    before = {"seed": 0, "pairs": {"max_history": 20, "split": {"kind": "time"}}, "logs": [{"uri": "a"}]}
    now = {"seed": 0, "pairs": {"max_history": 30, "split": None, "new": 1}, "logs": [{"uri": "b"}]}
    assert differing(before, now) == ["logs", "pairs.max_history", "pairs.new", "pairs.split"]
    assert differing(now, now) == []
