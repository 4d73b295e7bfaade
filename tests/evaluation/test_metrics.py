"""Metrics of whole arrays equal those of a loop over users."""

from __future__ import annotations

import json
import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.evaluation.metrics import NAMES, Sums, measure
from tests.evaluation import naive


class Case(NamedTuple):
    """Ranked lists and targets of some users."""

    num_items: int
    ks: tuple[int, ...]
    ranked: list[list[int]]
    targets: list[set[int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    num_items = draw(st.integers(1, 9))
    items = st.integers(0, num_items - 1)
    ks = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True)))
    width = min(max(ks), num_items)
    users = draw(st.integers(1, 6))
    ranked = [draw(st.lists(items, max_size=width, unique=True)) for _ in range(users)]
    targets = [draw(st.sets(items, min_size=1)) for _ in range(users)]
    return Case(num_items, ks, ranked, targets)


def measured(case: Case, users: slice = slice(None)) -> Sums:
    """``measure`` on the arrays that these users' lists and targets make."""
    ranked, targets = case.ranked[users], case.targets[users]
    width = min(max(case.ks), case.num_items)
    rows = np.array([one + [-1] * (width - len(one)) for one in ranked], dtype=np.int64).reshape(-1, width)
    hits = np.array(
        [[item in wanted for item in row] for row, wanted in zip(rows.tolist(), targets, strict=True)], dtype=np.bool_
    ).reshape(rows.shape)
    return measure(rows, hits, np.array([len(wanted) for wanted in targets], np.int64), case.ks, case.num_items)


def test_one_user_with_one_target_by_hand() -> None:
    found = measured(Case(10, (1, 2, 3), [[7, 4, 1]], [{4}])).summary()
    assert [found[f"{name}_at_1"] for name in NAMES] == [0.0, 0.0, 0.0, 0.0]
    assert [found[f"{name}_at_3"] for name in NAMES] == pytest.approx([1.0, 1.0, 1.0 / math.log2(3), 0.5])
    assert found["recall_at_3_ci"] == 0.0
    assert [found[f"coverage_at_{k}"] for k in (1, 2, 3)] == pytest.approx([0.1, 0.2, 0.3])


def test_several_targets_share_recall_and_the_ideal_gain_by_hand() -> None:
    found = measured(Case(10, (2, 4), [[5, 0, 6, 7]], [{5, 6, 9}])).summary()
    assert found["recall_at_2"] == pytest.approx(1 / 3)
    assert found["recall_at_4"] == pytest.approx(2 / 3)
    assert found["ndcg_at_2"] == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert found["ndcg_at_4"] == pytest.approx((1 + 0.5) / (1 + 1 / math.log2(3) + 0.5))
    assert found["mrr_at_2"] == 1.0


def test_a_k_beyond_the_catalogue_judges_the_whole_list() -> None:
    found = measured(Case(3, (3, 50), [[2, 0, 1]], [{0, 1}])).summary()
    assert all(found[f"{name}_at_50"] == found[f"{name}_at_3"] for name in (*NAMES, "coverage"))
    assert found["recall_at_50"] == 1.0


def test_the_interval_is_the_normal_one_of_the_mean() -> None:
    found = measured(Case(2, (1,), [[0], [0], [0], [0]], [{0}, {1}, {1}, {1}])).summary()
    assert found["hit_rate_at_1"] == 0.25
    assert found["hit_rate_at_1_ci"] == pytest.approx(1.96 * math.sqrt(0.25 * 0.75 / 4))


@given(cases())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_arrays_agree_with_the_loop(case: Case) -> None:
    truth = naive.summary(case.ranked, case.targets, case.ks, case.num_items)
    assert measured(case).summary() == pytest.approx(truth, abs=1e-7)


@given(cases(), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_parts_of_the_users_add_up_to_the_whole(case: Case, first: int, second: int) -> None:
    low, high = sorted((first, second))
    added = Sums()
    for part in (slice(0, low), slice(low, high), slice(high, None)):
        added.add(measured(case, part))
    whole = measured(case)
    assert added.num_users == whole.num_users
    assert added.summary() == pytest.approx(whole.summary())


def test_adding_leaves_the_other_sums_alone() -> None:
    total = Sums()
    first, second = measured(Case(4, (1,), [[0]], [{0}])), measured(Case(4, (1,), [[3]], [{0}]))
    total.add(first)
    total.add(second)
    assert total.summary()["coverage_at_1"] == 0.5
    assert first.summary()["coverage_at_1"] == second.summary()["coverage_at_1"] == 0.25


def test_nobody_measured_is_an_empty_summary() -> None:
    assert Sums().summary() == {}


@given(cases())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_sums_cross_as_json_and_bits(case: Case) -> None:
    sums = measured(case)
    plain = json.loads(json.dumps(sums.to_json()))
    found = Sums.from_json(plain, sums.covered_bits(), case.num_items)
    assert found.summary() == sums.summary()
    assert found.num_users == sums.num_users
    for k, items in sums.covered.items():
        np.testing.assert_array_equal(found.covered[k], items)


def test_sums_of_nobody_cross_too() -> None:
    assert Sums.from_json(Sums().to_json(), Sums().covered_bits(), 5) == Sums()
