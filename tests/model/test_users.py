"""The user side of towers on storage: the tower with the fitted features of requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raycl.data.features import Encoder, Encoders
from raycl.data.states import States
from raycl.errors import CorruptRelease
from raycl.model import inputs, users, weights
from raycl.model.spec import FeatureSizes
from raycl.model.users import UserSide
from raycl.storage.store import Store
from tests.model.builders import NUM_ITEMS, SOME_FEATURES, no_features, some_features, tower_spec, towers

REQUESTS = Encoders((Encoder("hour", "numeric", "", 0), Encoder("device", "categorical", "", 0, ("phone", "desk"))))
HISTORY = np.array([[0, 1, -1, -1], [3, 2, 1, 0], [-1, -1, -1, -1]], dtype=np.int32)
AGES = np.array([[5, 9e4, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0]], dtype=np.float32)
CONTEXT = {"hour": pa.array([3.0, None, 5.0]), "device": pa.array(["desk", "phone", "car"])}
ROWS = np.array([0, 1, -1], dtype=np.int32)


def saved(folder: Path, requests: Encoders = REQUESTS) -> Store:
    spec = tower_spec(SOME_FEATURES, SOME_FEATURES, pooling="attention", context=FeatureSizes.of(REQUESTS))
    store = Store(str(folder))
    weights.save(store, spec, towers(spec), some_features(NUM_ITEMS))
    users.save_context(store, requests)
    return store


def test_vectors_are_those_of_the_tower_told_all_that_is_known(tmp_path: Path) -> None:
    side, table = UserSide.load(saved(tmp_path)), some_features(2)
    assert side.columns == ["context_hour", "context_device"]
    found = side.vectors(States(HISTORY, ROWS, AGES, CONTEXT), table)
    said = inputs.from_table(REQUESTS.encode(pa.table(CONTEXT)), REQUESTS, 3)
    history, rows = torch.from_numpy(HISTORY).long(), torch.from_numpy(ROWS).long()
    expected = side.tower(history, table.take(rows), torch.from_numpy(AGES), said)
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)
    for less in (States(HISTORY, ROWS, None, CONTEXT), States(HISTORY, ROWS[::-1].copy(), AGES, CONTEXT)):
        assert not np.allclose(side.vectors(less, table), found, atol=1e-3)


def test_no_context_is_context_that_is_not_known() -> None:
    built = towers(tower_spec(context=FeatureSizes.of(REQUESTS))).user
    history = torch.from_numpy(HISTORY).long()
    nothing = inputs.from_table(REQUESTS.encode_rows([{}] * 3), REQUESTS, 3)
    assert torch.equal(built(history, no_features(3)), built(history, no_features(3), None, nothing))
    some = inputs.from_table(REQUESTS.encode_rows([{"device": "desk"}] * 3), REQUESTS, 3)
    assert not torch.allclose(built(history, no_features(3)), built(history, no_features(3), None, some), atol=1e-3)


def test_fitted_features_that_are_missing_altered_or_of_other_towers_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CorruptRelease, match=r"context\.json does not fit config\.json beside it"):
        UserSide.load(saved(tmp_path, Encoders()))
    store = saved(tmp_path)
    store.write(users.CONTEXT_FILE, b"{")
    with pytest.raises(CorruptRelease, match=r"context\.json holds no fitted features"):
        UserSide.load(store)
    store.delete(users.CONTEXT_FILE)
    with pytest.raises(CorruptRelease, match=r"context\.json holds no fitted features"):
        UserSide.load(store)
