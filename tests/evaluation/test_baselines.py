"""Baselines against dense loops, and against the library ``implicit`` where it has them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implicit.cpu.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from implicit.utils import ParameterWarning
from scipy import sparse
from threadpoolctl import threadpool_limits

from raycl.config_evaluation import BaselineConfig
from raycl.evaluation import baselines
from raycl.evaluation.baselines import Events, Fitted


def events(seed: int, num_users: int = 12, num_items: int = 9, size: int = 50) -> Events:
    generator = np.random.default_rng(seed)
    user, item = generator.integers(0, num_users, size), generator.integers(0, num_items, size)
    return Events(user, item, generator.integers(0, 30, size), num_users, num_items)


def kept(dense: np.ndarray, neighbours: int) -> np.ndarray:
    """Of each row the largest values besides its own column, the lower column among equals, the rest 0."""
    found = np.zeros_like(dense)
    for row, values in enumerate(dense):
        order = sorted((column for column in range(len(values)) if column != row), key=lambda c: (-values[c], c))
        found[row, order[:neighbours]] = values[order[:neighbours]]
    return found


@given(st.integers(0, 2**31), st.integers(1, 10))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_item_knn_is_the_cosine_of_columns(seed: int, neighbours: int) -> None:
    table = events(seed).table()
    dense = table.toarray()
    norms = np.maximum(np.linalg.norm(dense, axis=0), 1.0)
    found = baselines.cosine_neighbours(table, neighbours).toarray()
    # Equal cosines may come out a bit apart, so what is kept is compared by value.
    expected = kept(dense.T @ dense / np.outer(norms, norms), neighbours)
    assert np.sort(found) == pytest.approx(np.sort(expected), abs=1e-6)


def test_item_knn_is_that_of_implicit() -> None:
    table = events(3, 40, 30, 300).table()
    model = CosineRecommender(K=31)
    with pytest.warns(ParameterWarning, match="expects CSR"):
        model.fit(sparse.csr_matrix(table), show_progress=False)
    theirs = model.similarity.toarray()
    np.fill_diagonal(theirs, 0.0)
    assert baselines.cosine_neighbours(table, 30).toarray() == pytest.approx(theirs, abs=1e-5)


@given(st.integers(0, 2**31), st.sampled_from([(1.0, 0.0), (1.0, 0.6), (0.7, 0.3)]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_rp3beta_is_a_walk_of_two_steps(seed: int, powers: tuple[float, float]) -> None:
    table, (alpha, beta) = events(seed).table(), powers
    dense = table.toarray().astype(np.float64)
    num_users, num_items = np.maximum(dense.sum(0), 1.0), np.maximum(dense.sum(1), 1.0)
    walk = (dense.T / num_users[:, None]) ** alpha @ (dense / num_items[:, None]) ** alpha
    expected = kept(walk / num_users**beta, 4)
    assert np.sort(baselines.rp3beta(table, 4, alpha, beta).toarray()) == pytest.approx(np.sort(expected), abs=1e-6)


def test_a_product_in_runs_of_rows_is_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    table = events(5, 40, 60, 400).table()
    whole = baselines.cosine_neighbours(table, 7)
    monkeypatch.setattr(baselines, "_CELLS", 200)
    runs = baselines.cosine_neighbours(table, 7)
    np.testing.assert_array_equal(runs.toarray(), whole.toarray())


@given(st.integers(0, 2**31), st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_recent_counts_are_of_the_newest_events_and_all_of_their_oldest_moment(seed: int, share: float) -> None:
    given_events = events(seed)
    newest = sorted(given_events.time_ms.tolist(), reverse=True)[: max(round(share * 50), 1)]
    expected = [0] * 9
    for item, moment in zip(given_events.item.tolist(), given_events.time_ms.tolist(), strict=True):
        expected[item] += moment >= newest[-1]
    assert baselines.recent_counts(given_events, share).tolist() == expected


@pytest.mark.parametrize("alpha", [1.0, 15.0])
def test_users_of_als_are_those_that_implicit_makes_of_the_same_histories(alpha: float) -> None:
    config = BaselineConfig(als_factors=5, als_regularization=0.1)
    table = events(7, 40, 30, 300).table()
    factors = baselines.als(table, config, alpha, 3)
    assert factors.shape == (30, 5)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=5, regularization=0.1, alpha=alpha)
        model.item_factors = factors
        theirs = model.recalculate_user(np.arange(40), sparse.csr_matrix(table))
    assert baselines.als_users(factors, table, 0.1, alpha) == pytest.approx(theirs, abs=2e-2)
    np.testing.assert_array_equal(baselines.als(table, config, alpha, 3), factors)


def test_a_user_without_a_history_has_no_factors() -> None:
    found = baselines.als_users(np.ones((3, 2), np.float32), sparse.csr_array((1, 3)), 0.01, 1.0)
    assert found.tolist() == [[0.0, 0.0]]


def test_what_was_learned_crosses_as_arrays() -> None:
    made = baselines.fit(events(1), BaselineConfig(als_factors=3, als_iterations=2), 0)
    read = Fitted.from_arrays(made.arrays(), made.settings, made.left_out)
    assert set(read.counts) | set(read.neighbours) | set(read.factors) == set(BaselineConfig().names)
    for name, table in made.neighbours.items():
        np.testing.assert_array_equal(read.neighbours[name].toarray(), table.toarray())
    np.testing.assert_array_equal(read.factors["als"], made.factors["als"])
    np.testing.assert_array_equal(read.counts["recent_popularity"], made.counts["recent_popularity"])


def test_what_cannot_be_learned_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    timeless = Events(np.array([0, 1]), np.array([1, 0]), np.zeros(2, np.int64), 2, 2)
    made = baselines.fit(timeless, BaselineConfig(), 0)
    assert made.left_out == {
        "recent_popularity": "the log has no order in time",
        "als": "implicit is not installed: pip install 'raycl[als]', and evaluate with --force",
    }
    assert set(made.neighbours) == {"item_knn", "rp3beta"}
    nothing = Events(none := np.zeros(0, np.int64), none, none, 0, 4)
    assert set(baselines.fit(nothing, BaselineConfig(), 0).left_out) == set(BaselineConfig().names)


def in_groups(num_users: int, group_of_events: int, noise: int) -> Events:
    """Users of two halves of 20 items each, who meet items of their own half, and popular items besides."""
    generator = np.random.default_rng(5)
    user = np.repeat(np.arange(num_users), group_of_events + noise)
    own = 2 + (user % 2) * 20 + generator.integers(0, 20, len(user))
    popular = generator.integers(0, 2, len(user))
    item = np.where(np.tile(np.arange(group_of_events + noise) < group_of_events, num_users), own, popular)
    return Events(user, item, np.zeros(len(user), np.int64), num_users, 42)


def test_of_several_settings_the_one_that_finds_held_out_events_is_taken() -> None:
    log = in_groups(200, 6, 1)
    config = BaselineConfig(rp3_beta=(4.0, 0.3), als_alpha=(1e-4, 10.0), als_factors=4, neighbours=42)
    made = baselines.fit(log, config, 0)
    assert made.settings == {"rp3beta": {"rp3_beta": 0.3}, "als": {"als_alpha": 10.0}}
    alone = baselines.fit(log, config.model_copy(update={"rp3_beta": (0.3,), "als_alpha": (10.0,)}), 0)
    np.testing.assert_array_equal(made.factors["als"], alone.factors["als"])
    assert (made.neighbours["rp3beta"] != alone.neighbours["rp3beta"]).nnz == 0


def test_one_setting_may_stand_without_brackets() -> None:
    found = BaselineConfig.model_validate({"rp3_beta": 0.5, "als_alpha": 2})
    assert (found.rp3_beta, found.als_alpha) == ((0.5,), (2.0,))
