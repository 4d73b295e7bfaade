"""What is read of the item table later is what the pairs would have held."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from raycl import config_file, journey
from raycl.config import Config
from raycl.data import ray_pairs, table_rows
from raycl.data.handoff import Pairs
from raycl.errors import InputError
from tests.data import whole
from tests.data.builders import write_parquet


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    whole.without_ray(monkeypatch)


def displaying(folder: Path, name: str, *columns: str) -> Config:
    tree = whole.config(folder, {}).model_dump(mode="json")
    tree["items"]["display"] = columns
    return config_file.check(tree | {"workspace": str(folder / name)})


def made(config: Config) -> Pairs:
    return Pairs.of(ray_pairs.run(config, journey.workspace(config))[0])


def test_columns_that_pairs_were_made_without_are_shown_as_if_they_had_been_made_with_them(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    values = pa.table(
        {
            "id": [*range(24, -1, -1), 0, None],
            "name": [f"item {item}" for item in range(27)],
            "price": [float(item) for item in range(27)],
            "tags": [[str(item)] for item in range(27)],
            "kind": pa.array(["tea", "rope", None] * 9).dictionary_encode(),
        }
    )
    write_parquet(values, tmp_path / "items")
    wanted = displaying(tmp_path, "with", "tags", "price", "kind")
    expected = made(wanted).catalogue()
    for held in ((), ("price",), ("tags", "price", "kind", "name")):
        pairs = made(displaying(tmp_path, f"with {held}", *held))
        found = table_rows.shown(wanted, pairs)
        assert found.column_names == ["item", "title", "tags", "price", "kind"]
        assert found.to_pylist() == expected.to_pylist()


def test_a_column_that_the_table_has_not_is_named(tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    pairs = made(displaying(tmp_path, "workspace"))
    with pytest.raises(InputError, match="has no column 'colour'"):
        table_rows.shown(displaying(tmp_path, "workspace", "price", "colour"), pairs)
