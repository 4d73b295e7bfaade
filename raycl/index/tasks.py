"""The index stage, one task at a time: vectors of a run of items, one shard of them all, and what the gate asks."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raycl import lineage
from raycl.config import Config
from raycl.data import states
from raycl.data.handoff import Pairs
from raycl.data.hashing import hash_ids
from raycl.data.reader import read
from raycl.data.states import States
from raycl.errors import ConfigError, CorruptRelease, RayclError
from raycl.evaluation.tasks import item_features, user_features
from raycl.index import build, gate, release, search
from raycl.index.gate import Evidence
from raycl.index.search import Depth, Ids, ShardedIndex, Vectors
from raycl.model import embed, weights
from raycl.model.inputs import FeatureRows
from raycl.model.users import CONTEXT_FILE, UserSide
from raycl.storage import tables
from raycl.storage.versions import WORK, Draft, Version

STAGE = "releases"
_MULTIPLES = (1, 5, 20)
"""Of ``gate.index_recall_at``: what a search asks for is ``k`` and all that is left out of its answer."""


@dataclass(frozen=True)
class Job:
    """What every task needs to know."""

    draft: Draft
    pairs: Version
    towers: Version
    evaluation: Version
    config: Config

    @property
    def num_items(self) -> int:
        """Items that may be retrieved."""
        return self.pairs.manifest.counts["items"]

    @property
    def num_rows(self) -> int:
        """Rows of the vocabulary; some may be of items that are retired."""
        return Pairs.of(self.pairs).num_items

    @property
    def num_blocks(self) -> int:
        """Runs of ``index.items_per_block`` rows."""
        return -(-self.num_rows // self.config.index.items_per_block)

    @property
    def num_shards(self) -> int:
        """Parts of the index."""
        return self.config.index.num_shards


@dataclass(frozen=True)
class Embedded:
    """All vectors: how many there are, how many items have none, and the SHA-256 of the item tower that made them."""

    num_vectors: int
    not_finite: int
    item_tower: str


@dataclass(frozen=True)
class Truth:
    """That exact answers lie ready: for how many queries, and the numbers of items that recall is measured at."""

    num_queries: int
    ks: tuple[int, ...]


def embed_block(job: Job, block: int) -> dict[str, Any]:
    """Vectors of one run of items, those of each shard together; an item whose vector is not finite is left out.

    The record names the item tower by the bytes that were read here.
    """
    task = f"block-{block:06d}"
    if (record := job.draft.task_done(task)) is not None:
        return record
    ids, features, retired = _items(Pairs.of(job.pairs))
    first = block * job.config.index.items_per_block
    rows = np.arange(first, min(first + job.config.index.items_per_block, job.num_rows))
    within = torch.from_numpy(rows)
    tower, item_tower = weights.load_item_named(job.towers.store)
    vectors = embed.items(tower, features.take(within), first)
    active = ~retired[rows]
    finite = np.isfinite(vectors).all(axis=1)
    kept = finite & active
    shards = (hash_ids(ids.take(pa.array(rows))) % np.uint64(job.num_shards)).astype(np.int64)
    tables.write_buckets(
        job.draft.store, _vectors(block), _as_table(rows[kept], vectors[kept]), shards[kept], job.num_shards
    )
    record = {"items": int(active.sum()), "not_finite": int((~finite & active).sum()), "item_tower": item_tower}
    job.draft.finish_task(task, record)
    return record


def agree(job: Job, blocks: Sequence[dict[str, Any]]) -> Embedded:
    """What the embedding tasks made together, once they all read the weights that the towers' manifest names.

    Raises CorruptRelease where a task read others, and RayclError where no vector is finite.
    """
    expected = job.towers.manifest.checksums[weights.ITEM_FILE]
    others = [record["item_tower"] for record in blocks if record["item_tower"] != expected]
    if others:
        raise CorruptRelease(
            f"{job.towers.store.uri}/{weights.ITEM_FILE}: {len(others)} of {len(blocks)} embedding tasks read weights"
            f" of SHA-256 {others[0][:12]}, the manifest says {expected[:12]}: train again with --force, then index"
            f" with --force"
        )
    not_finite = sum(int(record["not_finite"]) for record in blocks)
    if not_finite == job.num_items:
        raise RayclError(
            f"no item has a finite vector in towers {job.towers.name}: lower train.learning_rate and train again"
        )
    return Embedded(job.num_items - not_finite, not_finite, expected)


def train_quantizer(job: Job, plan: build.Plan) -> dict[str, Any]:
    """Leave the centroids that all shards share; trained on a GPU where there is one, else on the node's CPUs."""
    task = "quantizer"
    if (record := job.draft.task_done(task)) is not None:
        return record
    on_gpu = job.config.index.use_gpu != "never" and hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0
    if job.config.index.use_gpu == "always" and not on_gpu:
        raise ConfigError("index.use_gpu=always and FAISS finds no GPU here: install the gpu extra or use auto")
    drawn = sample(job, build.sample_size(plan.num_lists))
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(os.cpu_count() or threads)  # Ray allows one a task, and no other task runs now
    try:
        centroids = build.train_quantizer(drawn, plan.num_lists, job.config.seed, use_gpu=on_gpu)
    finally:
        faiss.omp_set_num_threads(threads)
    _put(job, "centroids", centroids)
    record = {"vectors": len(drawn)}
    job.draft.finish_task(task, record)
    return record


def draw_queries(job: Job) -> dict[str, Any]:
    """Leave the vectors of held-out users, at most ``gate.num_queries``, drawn by the seed over all test files."""
    task = "queries"
    if (record := job.draft.task_done(task)) is not None:
        return record
    pairs, wanted = Pairs.of(job.pairs), job.config.gate.num_queries
    files = [path for path, num_pairs in pairs.files("test") if num_pairs]
    generator = np.random.default_rng([job.config.seed, 2])
    side, parts = UserSide.load(job.towers.store), []
    for path in files:
        sequences = read(job.pairs.verified(path).store, [path], "test", side.columns)
        drawn = generator.permutation(len(sequences))[: -(-wanted // len(files))]
        parts.append(states.before_targets(sequences, pairs.rules, "test").take(drawn))
    asked = States.concat(parts).take(np.arange(min(wanted, sum(map(len, parts)))))
    _put(job, "queries", side.vectors(asked, user_features(pairs)))
    record = {"queries": len(asked)}
    job.draft.finish_task(task, record)
    return record


def build_shard(job: Job, plan: build.Plan, shard: int) -> dict[str, Any]:
    """Index one shard, and leave its exact answers to the queries; queries and centroids lie ready."""
    task = f"shard-{shard:06d}"
    if (record := job.draft.task_done(task)) is not None:
        return record
    parts = [tables.read_bucket(job.draft.store, _vectors(block), shard) for block in range(job.num_blocks)]
    rows, vectors = _from_table(pa.concat_tables(parts))
    content = build.build_shard(vectors, rows, _get(job, "centroids") if plan.num_lists else None)
    job.draft.store.write(release.shard_file(shard), content)
    places, scores = search.exact(vectors, _get(job, "queries"), _most(job))
    ids = np.where(places < 0, -1, rows[places]) if len(rows) else places
    _put(job, f"exact-{shard:06d}-ids", ids)
    _put(job, f"exact-{shard:06d}-scores", scores)
    record = {"items": len(rows), "bytes": len(content)}
    job.draft.finish_task(task, record)
    return record


def merge_truth(job: Job, embedded: Embedded) -> dict[str, Any]:
    """Leave the exact answers of all shards together, with the answers of two shards in memory at a time."""

    def answers() -> Iterator[tuple[Ids, npt.NDArray[np.float32]]]:
        for shard in range(job.num_shards):
            yield _get(job, f"exact-{shard:06d}-ids"), _get(job, f"exact-{shard:06d}-scores")

    found, _ = search.merge_in_turn(answers(), _most(job))
    _put(job, "truth", found[:, : embedded.num_vectors])
    return {"num_queries": len(found)}


def truth_of(job: Job, embedded: Embedded, record: dict[str, Any]) -> Truth:
    """What ``merge_truth`` left, and at which numbers of items it can be looked at."""
    ks = {min(job.config.gate.index_recall_at * times, embedded.num_vectors) for times in _MULTIPLES}
    return Truth(int(record["num_queries"]), tuple(sorted(ks)))


def measure_shard(job: Job, shard: int, nprobe: int, truth: Truth) -> dict[str, Any]:
    """How much of the truth one shard finds in ``nprobe`` lists, at each of the truth's numbers of items.

    A shard's scores are exact, so what it finds of the best of all stays among the best of all shards together: the
    shards' hits add up.
    """
    index = ShardedIndex.from_bytes([job.draft.store.read(release.shard_file(shard))], ())
    best = _get(job, "truth")
    found, _ = index.probe(_get(job, "queries"), truth.ks[-1], nprobe)
    return {"hits": [search.hits(found[:, :k], best[:, :k]) for k in truth.ks]}


def recalls(truth: Truth, shards: Sequence[dict[str, Any]]) -> list[float]:
    """Recall at each of the truth's numbers of items, from what ``measure_shard`` told of every shard."""
    hits = np.sum([record["hits"] for record in shards], axis=0)
    return [int(found) / max(truth.num_queries * k, 1) for found, k in zip(hits, truth.ks, strict=True)]


def finish(
    job: Job,
    plan: build.Plan,
    embedded: Embedded,
    shards: Sequence[dict[str, Any]],
    truth: Truth,
    depths: tuple[Depth, ...],
) -> Version:
    """Judge the release, bind index and user tower, and commit; complete whatever the verdict.

    Raises CorruptRelease where the user tower is not the one that the towers' manifest names.
    """
    num_vectors = sum(record["items"] for record in shards)
    k, measured = max(job.config.evaluation.ks), job.evaluation.manifest.facts
    evidence = Evidence(
        index_recall=depths[0].recall,
        num_queries=truth.num_queries,
        recall=measured["towers"][f"recall_at_{k}"],
        popularity_recall=measured["popularity"][f"recall_at_{k}"],
        recall_at=k,
        part=measured["part"],
        num_items=job.num_items,
        num_vectors=num_vectors,
    )
    verdict = gate.decide(evidence, job.config.gate)
    write_user_side(job)
    made = job.towers.manifest.checksums
    origin = release.Lineage(
        job.pairs.name, job.towers.name, job.evaluation.name, made[weights.USER_FILE], made[weights.ITEM_FILE]
    )
    dim = weights.load_spec(job.towers.store).model.dim
    how = release.Search(plan.kind, job.num_shards, plan.num_lists, depths, dim, embedded.item_tower)
    release.write_facts(job.draft.store, how, origin, evidence, verdict)
    return job.draft.commit(
        inputs={"pairs": job.pairs.name, "towers": job.towers.name, "evaluation": job.evaluation.name},
        config=lineage.part(job.config, STAGE),
        counts={
            "items": job.num_items,
            "vectors": num_vectors,
            "index_bytes": sum(record["bytes"] for record in shards),
        },
        dropped={"not_finite": embedded.not_finite} if embedded.not_finite else {},
        facts={
            "index_recall": evidence.index_recall,
            "depths": [asdict(depth) for depth in depths],
            "plan": plan.reason,
            "publish": verdict.publish,
            "reason": verdict.reason,
        },
    )


def write_user_side(job: Job) -> None:
    """Copy into the release what turns a user into a vector, and what an answer shows of an item."""
    store, towers, pairs = job.draft.store, job.towers.store, Pairs.of(job.pairs)
    for path in (weights.USER_FILE, weights.CONFIG_FILE, CONTEXT_FILE):
        content = towers.read(path)
        found, expected = hashlib.sha256(content).hexdigest(), job.towers.manifest.checksums[path]
        if found != expected:
            raise CorruptRelease(
                f"{towers.uri}/{path} has SHA-256 {found[:12]}, its manifest says {expected[:12]}: train again with"
                f" --force"
            )
        store.write(f"{release.USER_TOWER}/{path}", content)
    store.write(release.FEATURES_FILE, json.dumps(pairs.encoders("users").to_json()).encode())
    shown = pairs.catalogue().append_column("train_count", pairs.vocabulary()["train_count"])
    tables.write(store, release.CATALOGUE_FILE, shown)


def sample(job: Job, size: int) -> Vectors:
    """Vectors of ``size`` items drawn by the seed, in the order of the vocabulary: the same however they are spread."""
    generator = np.random.default_rng([job.config.seed, 1])
    active = np.flatnonzero(~Pairs.of(job.pairs).retired())
    drawn = active[generator.choice(len(active), min(size, len(active)), replace=False)]
    rows, vectors = [], []
    for block in range(job.num_blocks):
        for shard in range(job.num_shards):
            part_rows, part_vectors = _from_table(tables.read_bucket(job.draft.store, _vectors(block), shard))
            mine = np.isin(part_rows, drawn)
            rows.append(part_rows[mine])
            vectors.append(part_vectors[mine])
    return np.concatenate(vectors)[np.argsort(np.concatenate(rows))]


def _most(job: Job) -> int:
    """The largest number of items that recall is measured at, before the catalogue's own size limits it."""
    return job.config.gate.index_recall_at * _MULTIPLES[-1]


def _put(job: Job, name: str, array: npt.NDArray[Any]) -> None:
    """Leave an array for other tasks of this draft."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    job.draft.store.write(f"{WORK}/{name}.npy", content.getvalue())


def _get(job: Job, name: str) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = np.load(io.BytesIO(job.draft.store.read(f"{WORK}/{name}.npy")), allow_pickle=False)
    return found


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
def _items(pairs: Pairs) -> tuple[Any, FeatureRows, npt.NDArray[np.bool_]]:
    """Ids and features of every item, and whether it is retired; read once a process."""
    return pairs.vocabulary()["item"].combine_chunks(), item_features(pairs), pairs.retired()
