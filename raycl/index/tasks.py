"""The index stage, one task at a time: vectors of a run of items, and one shard from all the runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.data.hashing import hash_ids
from raycl.data.reader import read
from raycl.errors import ConfigError
from raycl.evaluation.tasks import item_features, user_vectors
from raycl.index import build, gate, release, search
from raycl.index.gate import Evidence, Verdict
from raycl.index.search import ShardedIndex
from raycl.model import embed, weights
from raycl.model.inputs import FeatureRows
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft


@dataclass(frozen=True)
class Job:
    """What every task needs to know."""

    draft: Draft
    pairs: Pairs
    towers: Store
    config: Config
    num_items: int

    @property
    def num_blocks(self) -> int:
        """Runs of ``index.items_per_block`` items."""
        return -(-self.num_items // self.config.index.items_per_block)


def embed_block(job: Job, block: int) -> dict[str, Any]:
    """Vectors of one run of items, those of each shard together; an item whose vector is not finite is left out."""
    task = f"block-{block:06d}"
    if (record := job.draft.task_done(task)) is not None:
        return record
    ids, features = _items(job.pairs)
    first = block * job.config.index.items_per_block
    rows = np.arange(first, min(first + job.config.index.items_per_block, job.num_items))
    within = torch.from_numpy(rows)
    vectors = embed.items(weights.load_item(job.towers), features.take(within), first)
    finite = np.isfinite(vectors).all(axis=1)
    num_shards = job.config.index.num_shards
    shards = (hash_ids(ids.take(pa.array(rows))) % np.uint64(num_shards)).astype(np.int64)
    tables.write_buckets(
        job.draft.store, _vectors(block), _as_table(rows[finite], vectors[finite]), shards[finite], num_shards
    )
    record = {"items": len(rows), "not_finite": int((~finite).sum())}
    job.draft.finish_task(task, record)
    return record


def build_shard(job: Job, shard: int, centroids: npt.NDArray[np.float32] | None) -> dict[str, Any]:
    """Index one shard."""
    task = f"shard-{shard:06d}"
    if (record := job.draft.task_done(task)) is not None:
        return record
    parts = [tables.read_bucket(job.draft.store, _vectors(block), shard) for block in range(job.num_blocks)]
    rows, vectors = _from_table(pa.concat_tables(parts))
    content = build.build_shard(vectors, rows, centroids)
    job.draft.store.write(release.shard_file(shard), content)
    record = {"items": len(rows), "bytes": len(content)}
    job.draft.finish_task(task, record)
    return record


def sample(job: Job, size: int) -> npt.NDArray[np.float32]:
    """Vectors of ``size`` items drawn by the seed, in the order of the vocabulary: the same however they are spread."""
    generator = np.random.default_rng([job.config.seed, 1])
    drawn = generator.choice(job.num_items, min(size, job.num_items), replace=False)
    rows, vectors = [], []
    for part_rows, part_vectors in _parts(job):
        mine = np.isin(part_rows, drawn)
        rows.append(part_rows[mine])
        vectors.append(part_vectors[mine])
    return np.concatenate(vectors)[np.argsort(np.concatenate(rows))]


def all_vectors(job: Job) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Rows and vectors of every indexed item, for the exact search that the gate measures against."""
    rows, vectors = zip(*_parts(job), strict=True)
    return np.concatenate(rows), np.concatenate(vectors)


def queries(job: Job) -> npt.NDArray[np.float32]:
    """Vectors of held-out users, at most ``gate.num_queries``, drawn by the seed over all test files."""
    wanted = job.config.gate.num_queries
    found: list[npt.NDArray[np.float32]] = []
    files = [path for path, num_pairs in job.pairs.files("test") if num_pairs]
    generator = np.random.default_rng([job.config.seed, 2])
    for path in files:
        sequences = read(job.pairs.store, [path])
        vectors = user_vectors(job.pairs, job.towers, sequences)
        found.append(vectors[generator.permutation(len(vectors))[: -(-wanted // len(files))]])
    return np.concatenate(found)[:wanted]


def train_quantizer(job: Job, plan: build.Plan) -> npt.NDArray[np.float32] | None:
    """Centroids that all shards share, or None where search is exact; trained on a GPU where there is one."""
    if not plan.num_lists:
        return None
    on_gpu = job.config.index.use_gpu != "never" and hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0
    if job.config.index.use_gpu == "always" and not on_gpu:
        raise ConfigError("index.use_gpu=always and FAISS finds no GPU here: install the gpu extra or use auto")
    return build.train_quantizer(
        sample(job, build.sample_size(plan.num_lists)), plan.num_lists, job.config.seed, use_gpu=on_gpu
    )


def judge(job: Job, plan: build.Plan, metrics: Mapping[str, Any]) -> tuple[int, Evidence, Verdict]:
    """Probe as deep as the gate's floor needs, measure against exact search, and decide.

    ``metrics`` are the evaluation's facts. Returns the number of lists to probe with evidence and verdict.
    """
    gate_config, store = job.config.gate, job.draft.store
    shards = [store.read(release.shard_file(number)) for number in range(job.config.index.num_shards)]
    index = ShardedIndex.from_bytes(shards, 1)
    rows, vectors = all_vectors(job)
    asked = queries(job)
    truth = rows[search.exact(vectors, asked, gate_config.index_recall_at)]
    nprobe, reached = search.tune(index, plan.num_lists, asked, truth, gate_config.min_index_recall)
    k = max(job.config.evaluation.ks)
    evidence = Evidence(
        index_recall=reached,
        num_queries=len(asked),
        recall=metrics["towers"][f"recall_at_{k}"],
        popularity_recall=metrics["popularity"][f"recall_at_{k}"],
        recall_at=k,
        num_items=job.num_items,
        num_vectors=len(rows),
    )
    return nprobe, evidence, gate.decide(evidence, gate_config)


def write_user_side(job: Job) -> None:
    """Copy into the release what turns a user into a vector, and what an answer shows of an item."""
    store = job.draft.store
    for path in (weights.USER_FILE, weights.CONFIG_FILE):
        store.write(f"{release.USER_TOWER}/{path}", job.towers.read(path))
    store.write(release.FEATURES_FILE, json.dumps(job.pairs.encoders("users").to_json()).encode())
    shown = job.pairs.catalogue().append_column("train_count", job.pairs.vocabulary()["train_count"])
    tables.write(store, release.CATALOGUE_FILE, shown)


def _parts(job: Job) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Rows and vectors of each shard of each block."""
    for block in range(job.num_blocks):
        for shard in range(job.config.index.num_shards):
            yield _from_table(tables.read_bucket(job.draft.store, _vectors(block), shard))


def _vectors(block: int) -> str:
    return f"{WORK}/vectors/block-{block:06d}.arrow"


def _as_table(rows: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]) -> pa.Table:
    flat = pa.array(vectors.reshape(-1))
    return pa.table({"row": rows, "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})


def _from_table(table: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    vectors = table["vector"].combine_chunks()
    dim = vectors.type.list_size
    return table["row"].to_numpy(), vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)


@functools.lru_cache(maxsize=2)
def _items(pairs: Pairs) -> tuple[Any, FeatureRows]:
    """Ids and features of every item, read once a process."""
    return pairs.vocabulary()["item"].combine_chunks(), item_features(pairs)
