"""The index itself, one task at a time: what all shards share is trained once, then each is filled and written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from raycl.errors import ConfigError
from raycl.index import build, release, stored, vectors
from raycl.index.nearest import Ids, Vectors
from raycl.index.plan import Plan
from raycl.index.work import Job, from_table, prints_file, vectors_file
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import WORK

_TRAINED = f"{WORK}/trained.faiss"


def train(job: Job, plan: Plan) -> dict[str, Any]:
    """Leave the empty index that every shard begins with: its quantizer and codec learnt from a sample of all items.

    On a GPU where there is one, else on all of the node's CPUs. ConfigError where one is demanded and absent.
    """
    task = "trained"
    if (record := job.draft.task_done(task)) is not None:
        return record
    use_gpu = job.config.index.use_gpu
    on_gpu = use_gpu != "never" and build.num_gpus() > 0
    if use_gpu == "always" and not on_gpu:
        raise ConfigError("index.use_gpu=always and FAISS finds no GPU here: install the gpu extra or use auto")
    drawn = sample(job, plan.sample_size) if plan.sample_size else np.zeros((0, job.dim), dtype=np.float32)
    with build.all_threads():
        index = build.train(plan, drawn, job.config.seed, use_gpu=on_gpu)
    with job.draft.store.open_output(_TRAINED) as stream:
        build.write(index, stream)
    record = {"vectors": len(drawn), "on_gpu": on_gpu}
    job.draft.finish_task(task, record)
    return record


def build_shard(job: Job, plan: Plan, shard: int) -> dict[str, Any]:
    """Index one shard, block by block, and write it; the record has the SHA-256 of its files.

    Beside the index there is one block's part of the shard in memory.
    """
    task = f"shard-{shard:06d}"
    if (record := job.draft.task_done(task)) is not None:
        return record
    store = job.draft.store
    index = store.read_with(_TRAINED, build.read)
    for rows, block in job.parts(shard):
        build.add(index, block, rows)
    written = {release.shard_file(shard): _written(store, release.shard_file(shard), index)}
    num_items = int(index.ntotal)
    del index
    if plan.rerank:
        written[release.stored_file(shard)] = _kept(store, release.stored_file(shard), job.parts(shard), job.dim)
    prints = [tables.read_bucket(store, prints_file(block), shard) for block in range(job.num_blocks)]
    record = {
        "items": num_items,
        "bytes": sum(size for size, _ in written.values()),
        "duplicates": vectors.num_repeated(pa.concat_tables(prints)["print"].to_numpy()),
        "sha256": {path: digest for path, (_, digest) in written.items()},
    }
    job.draft.finish_task(task, record)
    return record


def sample(job: Job, size: int) -> Vectors:
    """Vectors of ``size`` items drawn by the seed, in the order of the vocabulary: the same however they are spread.

    Those of a block for each of the process's cores are in memory beside the sample.
    """
    generator = np.random.default_rng([job.config.seed, 1])
    active = np.flatnonzero(~job.retired)
    drawn = np.zeros(job.num_rows, dtype=np.bool_)
    drawn[active[generator.choice(len(active), min(size, len(active)), replace=False)]] = True

    def drawn_of(block: int) -> tuple[Ids, Vectors]:
        rows, found = from_table(tables.read_all_buckets(job.draft.store, vectors_file(block)))
        mine = drawn[rows]
        return rows[mine], found[mine]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        all_rows, all_vectors = zip(*pool.map(drawn_of, range(job.num_blocks)), strict=True)
    return np.concatenate(all_vectors)[np.argsort(np.concatenate(all_rows))]


def _written(store: Store, path: str, index: Any) -> tuple[int, str]:
    with store.open_output(path) as stream:
        return build.write(index, stream)


def _kept(store: Store, path: str, parts: Iterator[tuple[Ids, Vectors]], dim: int) -> tuple[int, str]:
    with store.open_output(path) as stream:
        hashed = _Hashed(stream)
        stored.write(pa.PythonFile(hashed, "w"), parts, dim)
    return hashed.size, hashed.digest.hexdigest()


class _Hashed:
    """A stream that knows how much it has passed on, and its SHA-256."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream, self.size, self.digest = stream, 0, hashlib.sha256()

    def write(self, piece: Any) -> int:
        content = bytes(piece)
        self.digest.update(content)
        self._stream.write(content)
        self.size += len(content)
        return len(content)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The stream is another's to close."""
