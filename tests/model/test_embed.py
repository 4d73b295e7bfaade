"""Whole tables through the towers, block by block."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raycl.model import embed
from tests.model.builders import NUM_ITEMS, SOME_FEATURES, some_features, tower_spec, towers

SPEC = tower_spec(SOME_FEATURES, SOME_FEATURES, pooling="recency")
BUILT = towers(SPEC)


@pytest.fixture(autouse=True, params=[1, 4, 8_192])
def rows_of_a_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "_ROWS", request.param)


def test_items_are_embedded_as_the_tower_does() -> None:
    features = some_features(NUM_ITEMS)
    expected = BUILT.item(torch.arange(NUM_ITEMS), features).detach().numpy()
    found = embed.items(BUILT.item, features)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)


def test_a_run_of_items_starts_at_its_first_row() -> None:
    features = some_features(NUM_ITEMS)
    run = features.take(torch.arange(2, 5))
    assert np.allclose(embed.items(BUILT.item, run, 2), embed.items(BUILT.item, features)[2:5], atol=1e-6)


def test_users_are_embedded_as_the_tower_does_and_unknown_ones_take_the_last_row() -> None:
    features = some_features(4)
    history = np.array([[0, 1, 2, 3], [1, -1, -1, -1], [-1] * 4, [2, 5, -1, -1], [0, -1, -1, -1]], dtype=np.int32)
    user_row = np.array([1, -1, 0, 3, 2], dtype=np.int32)
    taken = features.take(torch.tensor([1, 3, 0, 3, 2]))
    expected = BUILT.user(torch.from_numpy(history).long(), taken).detach().numpy()
    assert np.allclose(embed.users(BUILT.user, history, user_row, features), expected, atol=1e-6)


def test_no_users_have_no_vectors() -> None:
    found = embed.users(BUILT.user, np.zeros((0, 4), np.int32), np.zeros(0, np.int32), some_features(1))
    assert found.shape == (0, 8)
