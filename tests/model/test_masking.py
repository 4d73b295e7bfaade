"""Features that are hidden, and which of them together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.data.features import PADDING, UNKNOWN
from raycl.model import masking
from raycl.model.inputs import FeatureRows
from tests.model.builders import some_features


def test_what_is_hidden_is_as_if_the_item_did_not_have_it() -> None:
    features = some_features(4, seed=1)
    hidden = torch.tensor(
        [[False] * 5, [True, False, False, True, False], [True] * 5, [False, True, True, False, True]]
    )
    found = masking.hide(features, hidden)
    for row in range(4):
        for bag in range(2):
            expected = torch.tensor([UNKNOWN, PADDING, PADDING]) if hidden[row, bag] else features.tokens[bag][row]
            assert found.tokens[bag][row].tolist() == expected.tolist()
        for number in range(2):
            expected = torch.tensor(torch.nan) if hidden[row, 2 + number] else features.numbers[row, number]
            assert torch.allclose(found.numbers[row, number], expected, equal_nan=True)
        expected = torch.full((3,), torch.nan) if hidden[row, 4] else features.vectors[0][row]
        assert torch.allclose(found.vectors[0][row], expected, equal_nan=True)


def table(rows: int = 5_000) -> FeatureRows:
    """A category, its parent, a number that grows with the category, one of pure chance, and a constant."""
    generator = np.random.default_rng(0)
    category = generator.integers(1, 9, rows)
    tokens = [category, (category + 1) // 2, np.ones(rows, dtype=np.int64)]
    numbers = np.stack([category + generator.normal(0, 0.01, rows), generator.normal(0, 1, rows)], axis=1)
    return FeatureRows(
        tuple(torch.from_numpy(one[:, None]) for one in tokens), torch.from_numpy(numbers.astype(np.float32))
    )


def test_correlation_is_what_one_feature_tells_of_another() -> None:
    found = masking.correlation(table(), item_id=True)
    category, parent, constant, grows, chance, own = range(6)
    assert found == pytest.approx(found.T)
    assert np.diag(found).tolist() == [1.0] * 6
    assert found[category, parent] == pytest.approx(np.sqrt(np.log(4) / np.log(8)), abs=0.01)
    assert found[category, grows] > 0.7
    assert found[category, chance] < 0.05
    assert found[constant, [category, parent, grows, chance, own]].tolist() == [0.0] * 5
    assert found[own, category] == pytest.approx(np.sqrt(np.log(8) / np.log(5_000)), abs=0.01)


def test_a_large_table_is_judged_by_some_of_its_rows() -> None:
    found, small = masking.correlation(table(100_000), item_id=False), masking.correlation(table(), item_id=False)
    assert found == pytest.approx(small, abs=0.02)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(2, 7), st.integers(0, 2**32))
def test_two_views_hide_a_feature_with_its_nearest_and_all_others(num_features: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    correlated = generator.random((num_features, num_features))
    correlated = correlated + correlated.T
    first, second = masking.halves(correlated, generator)
    assert (first ^ second).all()
    assert first.sum() == num_features // 2
    nearest = []
    for drawn in range(num_features):
        others = sorted(set(range(num_features)) - {drawn}, key=lambda other: -correlated[drawn, other])
        nearest.append({drawn, *others[: num_features // 2 - 1]})
    assert set(np.flatnonzero(first).tolist()) in nearest


def test_every_feature_is_drawn_at_times() -> None:
    generator = np.random.default_rng(0)
    assert {masking.halves(np.eye(2), generator)[0].argmax() for _ in range(30)} == {0, 1}
