"""The paired test against all sign patterns and against scipy; corrections by hand and against scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raycl.data.hashing import mix
from raycl.evaluation import significance
from raycl.evaluation.bootstrap import Hashes


def users(count: int) -> Hashes:
    return mix(np.arange(count, dtype=np.uint64))


def test_signs_are_fair_and_a_function_of_user_and_seed() -> None:
    found = significance.signs(users(300), 1_000, 0)
    assert set(np.unique(found)) == {-1.0, 1.0}
    assert abs(found.mean()) < 0.01
    np.testing.assert_array_equal(significance.signs(users(9), 100, 0), found[:100, :9])
    assert (significance.signs(users(9), 100, 1) != found[:100, :9]).any()


@pytest.mark.parametrize("seed", range(4))
def test_p_values_are_near_those_of_all_sign_patterns_and_of_scipy(seed: int) -> None:
    """Differences on a grid, so that many patterns have equal sums."""
    generator = np.random.default_rng(seed)
    differences = generator.integers(-3, 5, (11, 2)) / 4.0
    found = significance.p_values(differences, users(11), 20_000, 0)
    for column in range(2):
        one = differences[:, column]
        sums = np.array([np.dot(signs, one) for signs in itertools.product((-1, 1), repeat=11)])
        exact = float((np.abs(sums) >= abs(one.sum()) - 1e-12).mean())
        assert found[column] == pytest.approx(exact, abs=0.015)
        theirs = stats.permutation_test((one,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert found[column] == pytest.approx(theirs.pvalue, abs=0.015)


def test_runs_that_are_alike_have_even_p_values_and_others_small_ones() -> None:
    generator = np.random.default_rng(9)
    alike = significance.p_values(generator.normal(size=(120, 300)), users(120), 999, 0)
    assert 0.02 <= float((alike <= 0.05).mean()) <= 0.09
    other = significance.p_values(generator.normal(0.5, 1.0, size=(120, 20)), users(120), 999, 0)
    assert float(other.max()) < 0.05


def test_no_difference_is_no_finding() -> None:
    assert significance.p_values(np.zeros((5, 1)), users(5), 100, 0) == [1.0]


def test_corrections_by_hand() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert significance.corrected(p, "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.corrected(p, "benjamini_hochberg") == pytest.approx([0.02, 0.04, 0.04, 0.02])


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_corrections_never_help_and_agree_with_scipy(values: list[float]) -> None:
    p = np.array(values)
    assert significance.corrected(p, "benjamini_hochberg") == pytest.approx(stats.false_discovery_control(p))
    holm = significance.corrected(p, "holm")
    assert (holm >= significance.corrected(p, "benjamini_hochberg") - 1e-12).all()
    assert float(holm.min()) == pytest.approx(min(1.0, len(p) * p.min()))
