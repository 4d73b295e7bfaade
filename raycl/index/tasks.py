"""The index stage, one task at a time: vectors of a run of items, queries of held-out users, and the towers."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raycl.data import table_rows
from raycl.data.handoff import Pairs
from raycl.data.hashing import bucket_of
from raycl.errors import CorruptRelease, RayclError
from raycl.evaluation.tasks import item_features, user_features
from raycl.index import questions, release, vectors
from raycl.index.work import Job as Job
from raycl.index.work import as_table, prints_file, vectors_file
from raycl.index.work import put as _put
from raycl.model import embed, weights
from raycl.model.ensemble import AnyItemTower
from raycl.model.inputs import FeatureRows
from raycl.model.users import CONTEXT_FILE, UserSide
from raycl.storage import tables
from raycl.storage.store import Store

STAGE = "releases"


@dataclass(frozen=True)
class Embedded:
    """All vectors: how many may be searched, how many items have none, and the SHA-256 of the tower that made them."""

    num_vectors: int
    num_null: int
    num_not_finite: int
    item_tower: str


def embed_block(job: Job, block: int) -> dict[str, Any]:
    """Vectors of one run of items, those of each shard together, without those that cannot be searched.

    The record names the item tower by the bytes that were read here.
    """
    task = f"block-{block:06d}"
    if (record := job.draft.task_done(task)) is not None:
        return record
    ids, features, retired = _items(Pairs.of(job.pairs))
    first = block * job.config.index.items_per_block
    rows = np.arange(first, min(first + job.config.index.items_per_block, job.num_rows))
    tower, item_tower = _item_tower(job.towers.store, job.config.index.use_gpu != "never")
    made = embed.items(tower, features.take(torch.from_numpy(rows)), first)
    checked = vectors.check(made, ~retired[rows])
    kept, num_shards, store = checked.usable, job.num_shards, job.draft.store
    shards = bucket_of(ids.take(pa.array(rows[kept])), num_shards)
    tables.write_buckets(store, vectors_file(block), as_table(rows[kept], made[kept]), shards, num_shards)
    prints = vectors.fingerprints(made[kept])
    parts = (prints % np.uint64(num_shards)).astype(np.int64)
    tables.write_buckets(store, prints_file(block), pa.table({"print": prints}), parts, num_shards)
    record = {
        "items": int((~retired[rows]).sum()),
        "null": checked.num_null,
        "not_finite": checked.num_not_finite,
        "item_tower": item_tower,
    }
    job.draft.finish_task(task, record)
    return record


def agree(job: Job, blocks: Sequence[dict[str, Any]]) -> Embedded:
    """What the embedding tasks made together, once they all read the weights that the towers' manifest names.

    Raises CorruptRelease where a task read others, and RayclError where no vector can be searched.
    """
    expected = job.towers.manifest.checksums[weights.ITEM_FILE]
    others = [record["item_tower"] for record in blocks if record["item_tower"] != expected]
    if others:
        raise CorruptRelease(
            f"{job.towers.store.uri}/{weights.ITEM_FILE}: {len(others)} of {len(blocks)} embedding tasks read weights"
            f" of SHA-256 {others[0][:12]}, the manifest says {expected[:12]}: train again with --force, then index"
            f" with --force"
        )
    null, not_finite = (sum(int(record[name]) for record in blocks) for name in ("null", "not_finite"))
    if null + not_finite == job.num_items:
        raise RayclError(
            f"no item has a vector that is finite and not zero in towers {job.towers.name} ({not_finite:,} are not"
            f" finite): lower train.learning_rate and train again"
        )
    return Embedded(job.num_items - null - not_finite, null, not_finite, expected)


def draw_queries(job: Job) -> dict[str, Any]:
    """Leave the vectors of held-out users, at most ``gate.num_queries``, drawn by the seed over all test files."""
    task = "queries"
    if (record := job.draft.task_done(task)) is not None:
        return record
    side = UserSide.load(job.towers.store)
    asked = questions.drawn(job, side.columns)
    _put(job, "queries", side.vectors(asked.states, user_features(Pairs.of(job.pairs))))
    record = {"queries": len(asked)}
    job.draft.finish_task(task, record)
    return record


def write_towers(job: Job) -> None:
    """Copy into the release what turns a user, and an item, into a vector, and what an answer shows of an item."""
    store, pairs = job.draft.store, Pairs.of(job.pairs)
    for folder, paths in (
        (release.USER_TOWER, (weights.USER_FILE, weights.CONFIG_FILE, CONTEXT_FILE)),
        (release.ITEM_TOWER, (weights.ITEM_FILE, weights.CONFIG_FILE)),
    ):
        for path in paths:
            store.write(f"{folder}/{path}", _of_towers(job, path))
    for path, side in ((release.FEATURES_FILE, "users"), (release.ITEM_FEATURES_FILE, "items")):
        store.write(path, json.dumps(pairs.encoders(side).to_json()).encode())
    shown = table_rows.shown(job.config, pairs).append_column("train_count", pairs.vocabulary()["train_count"])
    tables.write(store, release.CATALOGUE_FILE, shown)


def _of_towers(job: Job, path: str) -> bytes:
    """A file of the towers; CorruptRelease where it is not the one that their manifest names."""
    content = job.towers.store.read(path)
    found, expected = hashlib.sha256(content).hexdigest(), job.towers.manifest.checksums[path]
    if found != expected:
        raise CorruptRelease(
            f"{job.towers.store.uri}/{path} has SHA-256 {found[:12]}, its manifest says {expected[:12]}: train again"
            f" with --force"
        )
    return content


@functools.lru_cache(maxsize=2)
def _items(pairs: Pairs) -> tuple[Any, FeatureRows, npt.NDArray[np.bool_]]:
    """Ids and features of every item, and whether it is retired; read once a process."""
    return pairs.vocabulary()["item"].combine_chunks(), item_features(pairs), pairs.retired()


def _item_tower(store: Store, may_use_gpu: bool) -> tuple[AnyItemTower, str]:
    """The item tower, read once a process and again only where its file has changed, and the SHA-256 of its weights."""
    path = weights.ITEM_FILE
    info = store.patiently(path, lambda: store.filesystem.get_file_info(store.full(path)))
    tower, item_tower = _read_item_tower(store, (info.size, info.mtime_ns))
    return tower.to("cuda" if may_use_gpu and torch.cuda.is_available() else "cpu"), item_tower


@functools.lru_cache(maxsize=1)
def _read_item_tower(store: Store, _: tuple[int, int]) -> tuple[AnyItemTower, str]:
    return weights.load_item_named(store)
