"""Event types without a weight are counted as the pairs stage would quarantine them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raycl import config_file, journey
from raycl.config import Config
from raycl.data import event_types, ray_pairs, sources
from raycl.errors import InputError
from tests.data import whole
from tests.data.builders import write_parquet


def settings(folder: Path, columns: dict[str, Any], weights: dict[str, float], **pairs: Any) -> Config:
    logs = [{"uri": str(folder / "log"), "columns": columns, "time_unit": "order"}]
    return config_file.check(
        {"workspace": str(folder / "workspace"), "logs": logs, "event_weights": weights, "pairs": pairs}
    )


def write_log(folder: Path, types: list[Any], rows_per_group: int = 1_000) -> None:
    size = len(types)
    table = {"user": [row % 3 for row in range(size)], "item": [row % 7 for row in range(size)], "how": types}
    write_parquet(pa.table(table | {"when": list(range(size))}), folder / "log", rows_per_group=rows_per_group)


NAMED = {"user": "user", "item": "item", "time": "when", "event": "how"}


def test_rows_of_types_without_a_weight_are_those_that_a_run_quarantines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.without_ray(monkeypatch)
    write_log(tmp_path, ["view"] * 40 + ["cart"] * 30 + ["skip"] * 5 + ["look"] * 9 + [None] * 4)
    config = settings(tmp_path, NAMED, {"view": 1.0}, negative_events=["skip"])
    found = event_types.unweighted(config, sources.open_inputs(config))
    assert list(found.rows.items()) == [("cart", 30), ("look", 9)]
    assert (found.num_read, found.num_rows) == (88, 88)
    version, _ = ray_pairs.run(config, journey.workspace(config))
    assert version.manifest.dropped["unknown_event"] == 30 + 9 + 4
    assert found.lines()[0] == (
        "event type 'cart' has no weight, and its 30 rows would be quarantined as unknown_event: name it in"
        " event_weights, or in pairs.negative_events where it speaks against an item"
    )


def test_whole_numbers_are_types_by_their_digits(tmp_path: Path) -> None:
    write_log(tmp_path, [1, 2, 2, 3, None])
    config = settings(tmp_path, NAMED, {"1": 1.0, "3": 2.0})
    assert event_types.unweighted(config, sources.open_inputs(config)).rows == {"2": 2}


def test_a_log_without_event_types_has_none_to_weigh(tmp_path: Path) -> None:
    write_log(tmp_path, ["view", "cart"])
    config = settings(tmp_path, NAMED | {"event": None}, {})
    found = event_types.unweighted(config, sources.open_inputs(config))
    assert (found.rows, found.num_read, found.lines()) == ({}, 0, [])


def test_of_a_long_log_parts_are_read_and_said_to_be_parts(tmp_path: Path) -> None:
    write_log(tmp_path, ["view", "cart"] * 50, rows_per_group=10)
    config = settings(tmp_path, NAMED, {"view": 1.0})
    found = event_types.unweighted(config, sources.open_inputs(config), most_rows=30)
    assert found.num_read <= 30 < found.num_rows
    assert found.rows == {"cart": found.num_read // 2}
    assert f"its {found.rows['cart']} rows of the {found.num_read} that were looked at would" in found.lines()[0]


def test_of_many_types_the_commonest_are_named(tmp_path: Path) -> None:
    write_log(tmp_path, ["view", *(f"t{number}" for number in range(14) for _ in range(number + 1))])
    config = settings(tmp_path, NAMED, {"view": 1.0})
    lines = event_types.unweighted(config, sources.open_inputs(config)).lines()
    assert lines[0].startswith("event type 't13' has no weight, and its 14 rows")
    assert lines[10:] == ["and 4 more event types without a weight"]


@pytest.mark.parametrize(
    ("types", "named"), [(["look", "look", "cart", None], "look, cart"), ([None, None], "null everywhere")]
)
def test_a_log_of_which_no_row_would_be_left_is_refused(tmp_path: Path, types: list[Any], named: str) -> None:
    write_log(tmp_path, types if named != "null everywhere" else pa.array(types, pa.string()))
    config = settings(tmp_path, NAMED, {"view": 1.0})
    inputs = sources.open_inputs(config)
    with pytest.raises(InputError, match=f"event_weights names none of the log's event types, which are {named}:"):
        event_types.unweighted(config, inputs)
