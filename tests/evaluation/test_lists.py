"""What lists are like, against loops over one list at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from raycl.evaluation import lists
from raycl.evaluation.lists import QUALITIES, Catalogue
from tests.evaluation import naive

GENRES = ("tea", "rope", "lamp")


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 12))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_qualities_agree_with_loops_over_lists(seed: int, num_items: int, k: int) -> None:
    """Lists may be empty or short, items may be of no genre, and histories of nothing."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 5, num_items)
    vectors = generator.normal(size=(num_items, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    genres = [list(generator.choice(GENRES, int(generator.integers(0, 4)), replace=False)) for _ in range(num_items)]
    table = np.array([[(genre in own) / max(len(own), 1) for genre in GENRES] for own in genres])
    catalogue = Catalogue(counts, vectors, sparse.csr_array(table))
    ranked = [generator.permutation(num_items)[: int(generator.integers(0, num_items + 1))].tolist() for _ in range(5)]
    rows = np.array([one + [-1] * (num_items - len(one)) for one in ranked], dtype=np.int64)
    history = [generator.integers(0, num_items, int(generator.integers(0, 4))).tolist() for _ in ranked]
    met = sparse.csr_array(np.array([np.bincount(one, minlength=num_items) for one in history], dtype=np.float32))
    found = lists.qualities(catalogue, rows, (k,), met)
    assert set(found) == {f"{name}_at_{k}" for name in QUALITIES}
    for user, (one, past) in enumerate(zip(ranked, history, strict=True)):
        listed = one[:k]
        truth = {
            "novelty": naive.novelty(listed, counts.tolist()) if listed else math.nan,
            "popularity": sum(int(counts[item]) for item in listed) / len(listed) if listed else math.nan,
            "diversity": naive.diversity(listed, vectors.tolist()) if len(listed) > 1 else math.nan,
            "calibration": naive.calibration(listed, past, genres),
        }
        mine = {name: float(found[f"{name}_at_{k}"][user]) for name in truth}
        assert mine == pytest.approx(truth, abs=1e-5, nan_ok=True)


def test_a_list_as_the_history_is_calibrated_and_a_narrow_one_is_not() -> None:
    catalogue = Catalogue(np.ones(4, np.int64), np.eye(4, dtype=np.float32), sparse.csr_array(np.eye(2)[[0, 0, 1, 1]]))
    history = sparse.csr_array(np.array([[1.0, 0.0, 1.0, 0.0]] * 2))
    found = lists.qualities(catalogue, np.array([[1, 3], [0, 1]]), (2,), history)["calibration_at_2"]
    assert found[0] == pytest.approx(0.0)
    assert found[1] > 2.0


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_gini_index_is_the_mean_difference_of_two_items(counts: list[int]) -> None:
    exposed = np.array(counts, dtype=np.int64)
    assert lists.gini(exposed) == pytest.approx(naive.gini(counts), nan_ok=True)
    assert lists.coverage(exposed) == sum(count > 0 for count in counts) / len(counts)
