"""A release on storage: user tower, index shards and catalogue, bound to one another by checksum.

user_tower/   user.safetensors, config.json, features.json (how to encode what is known of a user)
shards/       00000.faiss ...
catalogue/    items.parquet: one vocabulary row a row
search.json   how to search, and which item tower made the vectors
lineage.json  the versions that it came from, and the towers' checksums
gate.json     evidence and verdict
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from raycl.data.features import Encoders
from raycl.errors import CorruptRelease
from raycl.index.gate import Evidence, Verdict
from raycl.index.search import ShardedIndex
from raycl.model import weights
from raycl.model.towers import UserTower
from raycl.storage import tables
from raycl.storage.manifest import Manifest
from raycl.storage.store import Store

USER_TOWER = "user_tower"
FEATURES_FILE = f"{USER_TOWER}/features.json"
CATALOGUE_FILE = "catalogue/items.parquet"
SEARCH_FILE = "search.json"
LINEAGE_FILE = "lineage.json"
GATE_FILE = "gate.json"


def shard_file(number: int) -> str:
    """Path of a shard within the release."""
    return f"shards/{number:05d}.faiss"


@dataclass(frozen=True)
class Search:
    """How to search a release; ``item_tower`` is the SHA-256 of the tower that made the vectors."""

    kind: str
    num_shards: int
    num_lists: int
    nprobe: int
    dim: int
    item_tower: str


@dataclass(frozen=True)
class Lineage:
    """Where a release came from; ``user_tower`` and ``item_tower`` are checksums of two towers trained together."""

    pairs: str
    towers: str
    evaluation: str
    user_tower: str
    item_tower: str


@dataclass(frozen=True)
class Release:
    """A verified release in memory."""

    name: str
    user_tower: UserTower
    user_encoders: Encoders
    index: ShardedIndex
    catalogue: pa.Table


def write_facts(store: Store, search: Search, lineage: Lineage, evidence: Evidence, verdict: Verdict) -> None:
    """Write the small files; the manifest follows when all is there."""
    for path, facts in ((SEARCH_FILE, asdict(search)), (LINEAGE_FILE, asdict(lineage))):
        store.write(path, json.dumps(facts, indent=2).encode())
    store.write(GATE_FILE, json.dumps({"evidence": asdict(evidence), "verdict": asdict(verdict)}, indent=2).encode())


def verify(store: Store) -> Manifest:
    """Check every file against the manifest, and that index and user tower were made together.

    Raises CorruptRelease naming the file.
    """
    manifest = Manifest.read(store)
    manifest.verify(store)
    search, lineage = Search(**_json(store, SEARCH_FILE)), Lineage(**_json(store, LINEAGE_FILE))
    held = manifest.checksums.get(f"{USER_TOWER}/{weights.USER_FILE}", "missing")
    if held != lineage.user_tower:
        raise CorruptRelease(
            f"{store.uri}/{USER_TOWER}/{weights.USER_FILE} has SHA-256 {held[:12]}, the lineage names"
            f" {lineage.user_tower[:12]}: a user tower of other towers {lineage.towers} would meet this index"
        )
    if search.item_tower != lineage.item_tower:
        raise CorruptRelease(
            f"{store.uri}/{SEARCH_FILE} says its vectors come from item tower {search.item_tower[:12]}, lineage names"
            f" {lineage.item_tower[:12]}: index and user tower were not made together"
        )
    return manifest


def load(store: Store) -> Release:
    """Verify the release whose root is ``store``, then load all that answers need."""
    manifest = verify(store)
    search = Search(**_json(store, SEARCH_FILE))
    shards = [store.read(shard_file(number)) for number in range(search.num_shards)]
    return Release(
        manifest.version,
        weights.load_user(store.under(USER_TOWER)),
        Encoders.from_json(json.loads(store.read(FEATURES_FILE))),
        ShardedIndex.from_bytes(shards, search.nprobe),
        tables.read(store, CATALOGUE_FILE),
    )


def _json(store: Store, path: str) -> dict[str, Any]:
    return dict(json.loads(store.read(path)))
