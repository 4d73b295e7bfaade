"""Synthetic logs through Ray: one shard a task, so that memory holds one shard however long the log."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from raycl import ray_runtime
from raycl.data import synthetic
from raycl.data.synthetic import TRUTH_FILE, SyntheticSpec, Truth
from raycl.storage import tables
from raycl.storage.store import Store


def write(spec: SyntheticSpec, store: Store) -> dict[str, Any]:
    """Write ``events/``, ``users/`` and ``items/`` under ``store``, and ``truth.json`` last.

    Returns what that holds: the truth and the spec. Ray is connected already. The same spec writes the same tables,
    and parts of an older log are removed first, so a ``truth.json`` is always that of the log beside it.
    """
    _remove_log(store)

    def write_shard(number: int) -> dict[str, Any]:
        made = synthetic.shard(spec, number)
        tables.write(store, f"events/part-{number:05d}.parquet", made.events)
        tables.write(store, f"users/part-{number:05d}.parquet", made.users)
        return asdict(made.truth)

    records = ray_runtime.map_tasks("synthesise", write_shard, synthetic.num_shards(spec))
    tables.write(store, "items/part-00000.parquet", synthetic.catalogue(spec))
    truth = synthetic.merge_truth([Truth(**record) for record in records]).to_json() | {"spec": asdict(spec)}
    store.write(TRUTH_FILE, json.dumps(truth, indent=2).encode())
    return truth


def _remove_log(store: Store) -> None:
    """Remove the truth first, then the parts; files of other names stay."""
    if store.exists(TRUTH_FILE):
        store.delete(TRUTH_FILE)
    for folder in ("events", "users", "items"):
        for path in store.files(folder):
            if path.startswith(f"{folder}/part-") and path.endswith(".parquet"):
                store.delete(path)
