"""The shape of the towers, there and back."""

from __future__ import annotations

import pyarrow as pa
import pytest

from raycl.config import Feature
from raycl.data.features import Encoders
from raycl.model.spec import FeatureSizes, TowerSpec
from tests.model.builders import SOME_FEATURES, tower_spec


@pytest.mark.parametrize("hidden", [(), (12, 5)])
@pytest.mark.parametrize("pooling", ["mean", "recency"])
def test_a_spec_comes_back_from_json(hidden: tuple[int, ...], pooling: str) -> None:
    spec = tower_spec(items=SOME_FEATURES, hidden=hidden, pooling=pooling, item_id=False, dropout=0.25)
    assert TowerSpec.from_json(spec.to_json()) == spec


def test_sizes_are_those_that_fitted_features_need() -> None:
    features = (
        Feature(column="a", kind="text", num_buckets=7),
        Feature(column="b", kind="numeric"),
        Feature(column="c"),
        Feature(column="d", kind="numeric"),
    )
    table = pa.table({"a": ["x y"], "b": [1], "c": ["z"], "d": [2]})
    assert FeatureSizes.of(Encoders.fit(features, table)) == FeatureSizes((8, 2), 2)
