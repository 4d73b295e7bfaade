"""Weights and intervals against what they must be on average, and sums of parts against the whole."""

from __future__ import annotations

import numpy as np
import pytest

from raycl.data.hashing import mix
from raycl.evaluation import bootstrap
from raycl.evaluation.bootstrap import Hashes, Sums
from raycl.evaluation.metrics import Floats


def users(count: int, first: int = 0) -> Hashes:
    return mix(np.arange(first, first + count, dtype=np.uint64))


def test_weights_are_poisson_variables_of_mean_one() -> None:
    drawn = bootstrap.weights(users(2_000), 200, 0)
    assert drawn.shape == (200, 2_000)
    shares = [float((drawn == count).mean()) for count in range(5)]
    assert shares == pytest.approx([0.3679, 0.3679, 0.1839, 0.0613, 0.0153], abs=0.003)
    assert np.asarray(np.corrcoef(drawn[:20]))[np.triu_indices(20, 1)] == pytest.approx(0.0, abs=0.12)


def test_a_user_has_the_same_weights_in_whatever_company_and_others_by_another_seed() -> None:
    whole = bootstrap.weights(users(50), 7, 3)
    np.testing.assert_array_equal(bootstrap.weights(users(9, 20), 7, 3), whole[:, 20:29])
    assert (bootstrap.weights(users(50), 7, 4) != whole).any()


def summed(values: Floats, shares: Floats, resamples: int = 1_000) -> Sums:
    return Sums.of(values, shares, bootstrap.weights(users(len(values)), resamples, 0))


def test_the_interval_is_about_that_of_the_normal_distribution() -> None:
    generator = np.random.default_rng(5)
    values = generator.random((3_000, 2))
    mean, low, high = summed(values, np.ones_like(values)).estimates()
    half = 1.96 * values.std(0) / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean(0))
    assert mean - low == pytest.approx(half, rel=0.1)
    assert high - mean == pytest.approx(half, rel=0.1)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(6)
    values = generator.exponential(size=(200, 300))  # 300 experiments of 200 users with a true mean of 1
    _, low, high = summed(values, np.ones_like(values), 400).estimates()
    assert 0.91 <= float(((low <= 1.0) & (high >= 1.0)).mean()) <= 0.97


def test_unknown_values_count_for_nothing_and_shares_weigh() -> None:
    values = np.array([[1.0, np.nan], [4.0, np.nan], [np.nan, np.nan]])
    shares = np.array([[1.0, 1.0], [3.0, 1.0], [9.0, 1.0]])
    mean, low, high = summed(values, shares, 100).estimates()
    assert mean[0] == pytest.approx((1.0 + 12.0) / 4.0)
    assert np.isnan([mean[1], low[1], high[1]]).all()
    assert 1.0 <= low[0] <= high[0] <= 4.0


def test_parts_of_the_users_add_up_to_the_whole() -> None:
    generator = np.random.default_rng(7)
    values, shares = generator.random((40, 3)), np.ones((40, 3))
    drawn = bootstrap.weights(users(40), 50, 0)
    added = Sums.of(values[:10], shares[:10], drawn[:, :10])
    added.add(Sums.of(values[10:], shares[10:], drawn[:, 10:]))
    whole = Sums.of(values, shares, drawn)
    assert added.num_users == whole.num_users == 40
    assert np.array(added.estimates()) == pytest.approx(np.array(whole.estimates()))
