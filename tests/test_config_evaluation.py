"""The ``evaluation`` section: what cannot be measured is refused at the door."""

from __future__ import annotations

from typing import Any

import pytest

from raycl import config_file
from raycl.errors import ConfigError

SMALLEST: dict[str, Any] = {"workspace": "w", "logs": [{"uri": "log"}]}

IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "cuts that descend": ({"popularity_cuts": [0.8, 0.5]}, "popularity_cuts=[0.8, 0.5] must ascend: use [0.5, 0.8]"),
    "a k twice": ({"ks": [10, 10]}, "ks=[10, 10] names one twice: name each once"),
    "columns of no users": ({"user_columns": ["country"]}, "evaluation.user_columns=['country'] needs the table users"),
    "columns of no items": ({"item_columns": "category"}, "evaluation.item_columns=['category'] needs the table items"),
    "calibration of no items": ({"calibration": "category"}, "evaluation.calibration=category needs the table items"),
    "a baseline that is none": ({"baselines": {"names": ["svd"]}}, "evaluation.baselines.names.0=svd"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_measured_names_field_value_and_remedy(case: str) -> None:
    plain, told = IMPOSSIBLE[case]
    with pytest.raises(ConfigError) as refused:
        config_file.check(SMALLEST | {"evaluation": plain})
    assert told in str(refused.value)
