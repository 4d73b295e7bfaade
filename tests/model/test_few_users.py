"""A few users in NumPy come out as torch has them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from raycl.model import embed, few_users
from raycl.model.few_users import FewUsers
from raycl.model.inputs import FeatureRows
from raycl.model.spec import FeatureSizes
from tests.model.builders import (
    NO_FEATURES,
    NUM_ITEMS,
    POOLINGS,
    SOME_FEATURES,
    no_features,
    some_features,
    tower_spec,
    towers,
)

MEANS = ("mean", "recency")
HISTORY, NUM_USERS = 4, 9


def histories(rows: int = NUM_USERS, seed: int = 0) -> npt.NDArray[np.int32]:
    """Rows of the vocabulary, some of them unknown to the towers; the first user did nothing."""
    found = np.random.default_rng(seed).integers(-1, NUM_ITEMS, (rows, HISTORY)).astype(np.int32)
    found[0] = -1
    return found


def ages(rows: int) -> npt.NDArray[np.float32]:
    return np.full((rows, HISTORY), np.nan, dtype=np.float32)


@pytest.mark.parametrize("shared_id_rows", [None, 3])
@pytest.mark.parametrize("hidden", [(), (12,), (12, 5)])
@pytest.mark.parametrize("features", [NO_FEATURES, SOME_FEATURES])
@pytest.mark.parametrize("pooling", MEANS)
def test_means_and_dense_layers_come_out_as_torch_has_them(
    monkeypatch: pytest.MonkeyPatch,
    pooling: str,
    features: FeatureSizes,
    hidden: tuple[int, ...],
    shared_id_rows: int | None,
) -> None:
    spec = tower_spec(users=features, context=features, pooling=pooling, hidden=hidden, shared_id_rows=shared_id_rows)
    tower = towers(spec).user
    described = some_features(NUM_USERS) if features is SOME_FEATURES else no_features(NUM_USERS)
    said = some_features(NUM_USERS, seed=1) if features is SOME_FEATURES else no_features(NUM_USERS)
    expected = embed.users(tower, histories(), None, described, ages(NUM_USERS), said)
    few = FewUsers(tower)
    monkeypatch.setattr(embed, "users", refuse)
    found = few(histories(), described, ages(NUM_USERS), said)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    alone = [few(histories()[one : one + 1], row(described, one), ages(1), row(said, one))[0] for one in range(9)]
    np.testing.assert_allclose(np.stack(alone), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", sorted({*POOLINGS} - {*MEANS}))
def test_other_poolings_are_torchs(pooling: str) -> None:
    tower = towers(tower_spec(pooling=pooling)).user
    age_s = np.arange(NUM_USERS * HISTORY, dtype=np.float32).reshape(NUM_USERS, HISTORY)
    expected = embed.users(tower, histories(), None, no_features(NUM_USERS), age_s, no_features(NUM_USERS))
    found = FewUsers(tower)(histories(), no_features(NUM_USERS), age_s, no_features(NUM_USERS))
    np.testing.assert_array_equal(found, expected)


def test_many_users_are_torchs() -> None:
    tower, many = towers(tower_spec()).user, few_users._FEW + 1
    described = no_features(many)
    expected = embed.users(tower, histories(many), None, described)
    np.testing.assert_array_equal(FewUsers(tower)(histories(many), described, ages(many), described), expected)


def row(features: FeatureRows, place: int) -> FeatureRows:
    return features.part(slice(place, place + 1))


def refuse(*_: object) -> None:
    pytest.fail("torch is asked")
