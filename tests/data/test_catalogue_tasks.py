"""Which rows of the item table are items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file, journey, schema
from raycl.data import ray_pairs
from raycl.data.handoff import Pairs
from raycl.errors import InputError
from raycl.storage import tables
from raycl.storage.versions import Version
from tests import tiny as builders
from tests.data.whole import without_ray


def pairs_where(folder: Path, where: dict[str, Any]) -> Version:
    """The pairs of the tiny log, some of whose items are services."""
    builders.write_log(folder / "log")
    path = folder / "log" / "items.parquet"
    table = pq.read_table(path)
    service = pa.array([None if row % 6 == 5 else row % 4 == 0 for row in range(table.num_rows)])
    pq.write_table(table.append_column("service", service), path)
    tree = builders.tiny_tree(folder)
    tree["items"]["where"] = where
    config = config_file.check(tree)
    return ray_pairs.run(config, journey.workspace(config))[0]


def test_rows_with_another_value_are_no_items_and_their_events_are_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    found = pairs_where(tmp_path, {"service": False})
    kept = {101 + row for row in range(30) if row % 4 and row % 6 != 5}
    assert set(Pairs.of(found).vocabulary()["item"].to_pylist()) == kept
    events = pq.read_table(tmp_path / "log" / "events.parquet")["item_id"].to_pylist()
    assert found.manifest.counts["items_unwanted"] == 30 - len(kept)
    left_out = tables.read(found.store, schema.UNWANTED_FILE)["item"]
    assert (left_out.type, set(left_out.to_pylist())) == (pa.int64(), {*range(101, 131)} - kept)
    assert found.manifest.dropped["unknown_item"] == sum(item not in kept for item in events)


def test_several_columns_must_all_agree_and_null_is_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    found = pairs_where(tmp_path, {"service": None, "category": "lamp"})
    assert Pairs.of(found).vocabulary()["item"].to_pylist() == [106, 112, 118, 124, 130]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"service": "never"}, r"items\.where\.service=never: the column is of type bool"),
        ({"category": "spoon"}, r"holds no item with an id: check items\.where"),
        ({"colour": "red"}, r"items\.uri: file items\.parquet has no column 'colour'"),
    ],
)
def test_what_no_row_can_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: dict[str, Any], told: str
) -> None:
    without_ray(monkeypatch)
    with pytest.raises(InputError, match=told):
        pairs_where(tmp_path, where)
