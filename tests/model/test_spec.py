"""The shape of the towers, there and back."""

from __future__ import annotations

import pyarrow as pa
import pytest

from raycl.config import Feature
from raycl.data.features import Encoders
from raycl.model.spec import FeatureSizes, TowerSpec
from tests.model.builders import POOLINGS, SOME_FEATURES, tower_spec


@pytest.mark.parametrize("hidden", [(), (12, 5)])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("shared_id_rows", [None, 3])
def test_a_spec_comes_back_from_json(hidden: tuple[int, ...], pooling: str, shared_id_rows: int | None) -> None:
    spec = tower_spec(
        items=SOME_FEATURES, hidden=hidden, pooling=pooling, item_id=False, dropout=0.25, shared_id_rows=shared_id_rows
    )
    assert TowerSpec.from_json(spec.to_json()) == spec


def test_sizes_are_those_that_fitted_features_need() -> None:
    features = (
        Feature(column="a", kind="text", num_buckets=7),
        Feature(column="b", kind="numeric"),
        Feature(column="c"),
        Feature(column="d", kind="numeric", transform="log"),
        Feature(column="e", kind="vector", length=2),
        Feature(column="f", kind="hashed", num_buckets=11),
        Feature(column="g", kind="numeric", transform="buckets"),
    )
    table = pa.table({"a": ["x y"], "b": [1], "c": ["z"], "d": [2], "e": [[1.0, 2.0]], "f": ["i"], "g": [4]})
    assert FeatureSizes.of(Encoders.fit(features, table)) == FeatureSizes((9, 3, 13, 4), 2, (2,))
