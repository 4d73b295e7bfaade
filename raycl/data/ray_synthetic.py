"""Synthetic logs through Ray: one shard a task, so that memory holds one shard however long the log."""

from __future__ import annotations

import json
from typing import Any

from raycl import ray_runtime
from raycl.data import synthetic
from raycl.data.synthetic import SyntheticSpec, Truth
from raycl.storage import tables
from raycl.storage.store import Store

TRUTH_FILE = "truth.json"


def write(spec: SyntheticSpec, store: Store) -> dict[str, Any]:
    """Write ``events/``, ``users/`` and ``items/`` under ``store``, and ``truth.json`` last; returns what that holds.

    Ray is connected already. The same spec writes the same tables.
    """

    def write_shard(number: int) -> dict[str, Any]:
        made = synthetic.shard(spec, number)
        tables.write(store, f"events/part-{number:05d}.parquet", made.events)
        tables.write(store, f"users/part-{number:05d}.parquet", made.users)
        return synthetic.truth_to_json(made.truth)

    records = ray_runtime.map_tasks("synthesise", write_shard, spec.num_shards)
    tables.write(store, "items/part-00000.parquet", synthetic.catalogue(spec))
    truth = synthetic.merge_truth([Truth(**record) for record in records])
    store.write(TRUTH_FILE, json.dumps(truth, indent=2).encode())
    return truth
