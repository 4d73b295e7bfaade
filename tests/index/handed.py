"""Hand-ins to the tiny release: rows of its catalogue's table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raycl import journey
from raycl.config import Config
from raycl.index.delta_items import Handed
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace
from tests.index.builders import built


def rows(*ids: int, price: float = 3.0, category: str = "tea") -> pa.Table:
    """Rows of the catalogue's table."""
    titles = [f"Told anew {item}" for item in ids]
    columns = {"item_id": pa.array(ids, pa.int64()), "title": pa.array(titles, pa.string())}
    columns["category"] = pa.array([category] * len(ids), pa.string())
    columns["price"] = pa.array([price] * len(ids), pa.float64())
    return pa.table(columns)


def handed(items: pa.Table | None = None, removed: Sequence[Any] = ()) -> Handed:
    """These rows, and the ids of items that are gone."""
    return Handed("item_id", "title", rows() if items is None else items, removed)


def catalogue(config: Config) -> pa.Table:
    """The whole catalogue's table."""
    assert config.items is not None
    return pq.read_table(config.items.uri)


def moved(config: Config, store: Store) -> Version:
    """The release of ``config``, alone in another workspace."""
    source, version = journey.workspace(config).store, built(config)
    for path in version.store.files():
        store.write(f"releases/{version.name}/{path}", source.read(f"releases/{version.name}/{path}"))
    return Workspace(store).open("releases", version.name)
