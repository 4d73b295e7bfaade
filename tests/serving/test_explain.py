"""Attributions against their definition, and that they add up whatever the worth is."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from raycl.serving import explain
from raycl.serving.explain import Subsets, Values


def lumpy(num_events: int, seed: int) -> explain.Worth:
    """A worth with interactions: a random network on the subset, for three items."""
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(num_events, 9)), generator.normal(size=(9, 3))
    return lambda subsets: np.asarray(np.tanh(subsets @ first + 0.3) @ second)


@pytest.mark.parametrize("num_events", [1, 2, 5])
def test_few_events_have_the_mean_difference_over_all_orders(num_events: int) -> None:
    worth = lumpy(num_events, num_events)
    expected = np.zeros((num_events, 3))
    for order in permutations(range(num_events)):
        taken = np.zeros((1, num_events), dtype=np.bool_)
        for event in order:
            before = worth(taken)[0]
            taken[0, event] = True
            expected[event] += (worth(taken)[0] - before) / math.factorial(num_events)
    base, values = explain.shapley(worth, num_events)
    np.testing.assert_allclose(values, expected, atol=1e-12)
    np.testing.assert_allclose(base, worth(np.zeros((1, num_events), dtype=np.bool_))[0])


@pytest.mark.parametrize("num_events", [0, 1, 7, 8, 30])
def test_base_and_values_add_up_to_the_worth_of_all(num_events: int) -> None:
    worth = lumpy(num_events, 1)
    base, values = explain.shapley(worth, num_events)
    assert values.shape == (num_events, 3)
    np.testing.assert_allclose(base + values.sum(0), worth(np.ones((1, num_events), dtype=np.bool_))[0], atol=1e-9)


@pytest.mark.parametrize("num_events", [6, 20])
def test_an_event_that_changes_nothing_has_no_value_and_equal_ones_have_equal(num_events: int) -> None:
    """Of many events equal ones are equal only on the mean over drawn orders, so it is the dummy alone there."""

    def worth(subsets: Subsets) -> Values:
        return np.asarray(np.sqrt(subsets[:, 1:].sum(1, keepdims=True)))

    _, values = explain.shapley(worth, num_events)
    assert values[0] == pytest.approx(0.0, abs=1e-12)
    if num_events <= explain.EXACT_UP_TO:
        assert values[1:].ravel() == pytest.approx([math.sqrt(num_events - 1) / (num_events - 1)] * (num_events - 1))


def test_an_additive_worth_is_found_exactly_from_drawn_orders() -> None:
    parts = np.arange(20.0)
    _, values = explain.shapley(lambda subsets: np.asarray((subsets @ parts)[:, None]), 20)
    assert values[:, 0] == pytest.approx(parts)


def test_drawn_orders_are_near_the_exact_values(monkeypatch: pytest.MonkeyPatch) -> None:
    _, exact = explain.shapley(lumpy(7, 3), 7)
    monkeypatch.setattr(explain, "EXACT_UP_TO", 0)
    monkeypatch.setattr(explain, "NUM_ORDERS", 2_000)
    _, drawn = explain.shapley(lumpy(7, 3), 7)
    np.testing.assert_allclose(drawn, exact, atol=0.05)


def test_the_seed_decides_which_orders_are_drawn() -> None:
    first, again, other = (explain.shapley(lumpy(12, 3), 12, seed)[1] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
