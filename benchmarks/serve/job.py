"""The job of every contender: one release on disk, and the requests that are asked of it over HTTP.

Items lie in clusters, as learnt ones do; the towers are not trained, and read a history of 20 items. What is asked is
``POST /v1/retrieve`` with ``{"history": [...], "k": 10}``; an answer has ids, scores and titles of the nearest items
that are not in the history.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raycl.config import IndexConfig, ModelConfig
from raycl.data.features import Encoders
from raycl.data.hashing import bucket_of
from raycl.index import build, plan, release
from raycl.index.gate import Evidence, Verdict
from raycl.index.search import Depth
from raycl.model import inputs, users, weights
from raycl.model.spec import FeatureSizes, TowerSpec
from raycl.model.towers import TwoTower
from raycl.storage import pointer, tables
from raycl.storage.manifest import checksums
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace

DIM, MAX_HISTORY, K, NUM_REQUESTS = 64, 20, 10, 2_000
FIRST_ITEM = 1_000_000
MOSTLY = 0.9
_NPROBE = 8
_PER_CLUSTER = 500
_SPREAD = 0.5
_CHUNK = 500_000

Vectors = npt.NDArray[np.float32]


def workspace(folder: Path, items: int, shards: int) -> Path:
    """The workspace of this size, with one published release and ``requests.jsonl``; made at the first call."""
    place = folder / f"items-{items}-shards-{shards}"
    if not (place / "requests.jsonl").exists():
        space = Workspace(Store(str(place)))
        pointer.publish(space.store, add_release(space, items, shards, seed=0).name)
        (place / "requests.jsonl").write_text("\n".join(json.dumps(one) for one in requests(items)))
    return place


def requests(items: int) -> list[dict[str, Any]]:
    """Histories of 1 to 20 items that lie near one another, as a user's do; always the same ones."""
    generator = np.random.default_rng(items)
    found = []
    for _ in range(NUM_REQUESTS):
        count, centre = int(generator.integers(1, MAX_HISTORY + 1)), int(generator.integers(items))
        near = (centre + generator.choice(_PER_CLUSTER, count, replace=False)) % items
        found.append({"history": (FIRST_ITEM + near).tolist(), "k": K})
    return found


def add_release(space: Workspace, items: int, shards: int, seed: int) -> Version:
    """A release of ``items`` in ``shards``, whose towers and index come from the seed."""
    draft = space.draft("releases", f"{seed:064x}")
    store, nothing = draft.store, Encoders()
    sizes = FeatureSizes.of(nothing)
    spec = TowerSpec(items, MAX_HISTORY, sizes, sizes, ModelConfig(dim=DIM))
    torch.manual_seed(seed)
    towers = TwoTower(spec)
    made = _vectors(items, seed)
    assert towers.user.history is not None
    with torch.no_grad():
        towers.user.history.weight[1:] = torch.from_numpy(made)
        towers.user.known[:] = True
        towers.item.known[:] = True
    catalogue = inputs.unknown(sizes, items, torch.device("cpu"))
    for folder in (release.USER_TOWER, release.ITEM_TOWER):
        weights.save(store.under(folder), spec, towers, catalogue)
    store.delete(f"{release.USER_TOWER}/{weights.ITEM_FILE}")
    store.delete(f"{release.ITEM_TOWER}/{weights.USER_FILE}")
    users.save_context(store.under(release.USER_TOWER), nothing)
    for path in (release.FEATURES_FILE, release.ITEM_FEATURES_FILE):
        store.write(path, json.dumps(nothing.to_json()).encode())
    del towers
    ids = pa.array(np.arange(FIRST_ITEM, FIRST_ITEM + items))
    shown = {"item": ids, "title": [f"Item {one} of a catalogue" for one in range(items)]}
    tables.write(store, release.CATALOGUE_FILE, pa.table({**shown, "train_count": np.arange(items)[::-1] % 1_000}))
    kind = plan.choose(IndexConfig(kind="ivf_flat"), items, DIM, 0.95)
    _index(store, kind, made, np.asarray(bucket_of(ids, shards)), shards)
    towers_made = {
        side: checksums(store, [path])[path]
        for side, path in (
            ("user", f"{release.USER_TOWER}/{weights.USER_FILE}"),
            ("item", f"{release.ITEM_TOWER}/{weights.ITEM_FILE}"),
        )
    }
    search = release.Search(
        kind.kind, shards, kind.num_lists, (Depth(100, _NPROBE, 1.0),), DIM, towers_made["item"], factory=kind.factory
    )
    origin = release.Lineage("none", "none", "none", towers_made["user"], towers_made["item"])
    evidence = Evidence(1.0, 0, 0.0, 0.0, K, "none", items, items)
    release.write_facts(store, search, origin, evidence, Verdict(publish=True, reason="a benchmark's"))
    return draft.commit(inputs={}, config={}, counts={"items": items}, facts={"publish": True, "index_recall": 1.0})


def same(found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> bool:
    """Whether two contenders answer alike: the same items in the same order but for ties, scores within 1e-4."""
    return all(
        len(one["items"]) == len(other["items"])
        and np.allclose(_scores(one), _scores(other), atol=1e-4)
        and len(_ids(one) & _ids(other)) >= len(_ids(other)) - _near_last(other)
        for one, other in zip(found, expected, strict=True)
    )


def overlap(found: Sequence[dict[str, Any]], exact: Sequence[dict[str, Any]]) -> float:
    """Share of the exact answers' items that were found."""
    hits = sum(len(_ids(one) & _ids(other)) for one, other in zip(found, exact, strict=True))
    return hits / max(sum(len(_ids(other)) for other in exact), 1)


def _scores(answer: dict[str, Any]) -> list[float]:
    return [float(item["score"]) for item in answer["items"]]


def _ids(answer: dict[str, Any]) -> set[int]:
    return {int(item["item_id"]) for item in answer["items"]}


def _near_last(answer: dict[str, Any]) -> int:
    """How many items could give way to others of the same score."""
    scores = _scores(answer)
    return sum(score - scores[-1] < 1e-4 for score in scores)


def _vectors(items: int, seed: int) -> Vectors:
    generator = np.random.default_rng([items, seed])
    centres = generator.standard_normal((max(50, items // _PER_CLUSTER), DIM), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    made = np.empty((items, DIM), dtype=np.float32)
    for start in range(0, items, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, items))
        drawn = centres[rows // _PER_CLUSTER % len(centres)]
        drawn = drawn + _SPREAD * DIM**-0.5 * generator.standard_normal(drawn.shape, dtype=np.float32)
        made[rows] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return made


def _index(store: Store, kind: plan.Plan, made: Vectors, shard_of: npt.NDArray[Any], shards: int) -> None:
    generator = np.random.default_rng(0)
    with build.all_threads():
        drawn = np.sort(generator.choice(len(made), min(kind.sample_size, len(made)), replace=False))
        with store.open_output("work/trained") as stream:
            build.write(build.train(kind, made[drawn], 0), stream)
        for shard in range(shards):
            index = store.read_with("work/trained", build.read)
            rows = np.flatnonzero(shard_of == shard).astype(np.int64)
            build.add(index, made[rows], rows)
            with store.open_output(release.shard_file(shard)) as stream:
                build.write(index, stream)
