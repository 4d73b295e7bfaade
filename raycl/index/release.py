"""A release on storage: both towers, index shards and catalogue, bound to one another by checksum.

user_tower/   user.safetensors, config.json, features.json (how to encode what is known of a user) and context.json
              (the same of a request)
item_tower/   item.safetensors, config.json, features.json: what made the vectors of the shards, and makes those of
              items that come between two nights
shards/       00000.faiss ..., and where answers are re-ranked 00000.vectors.arrow ...
catalogue/    items.parquet: one vocabulary row a row
search.json   how to search, and which item tower made the vectors: the weights that the embedding tasks read
lineage.json  the versions that it came from, and the checksums that the towers' manifest has
gate.json     evidence and verdict
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import pyarrow as pa

from raycl.data.features import Encoders
from raycl.errors import CorruptRelease
from raycl.index import build
from raycl.index.gate import Evidence, Verdict
from raycl.index.merging import together
from raycl.index.search import Depth, ShardedIndex
from raycl.index.stored import Stored
from raycl.model import weights
from raycl.model.ensemble import AnyUserTower
from raycl.model.users import UserSide
from raycl.storage import tables
from raycl.storage.manifest import Manifest
from raycl.storage.store import Store

USER_TOWER = "user_tower"
FEATURES_FILE = f"{USER_TOWER}/features.json"
ITEM_TOWER = "item_tower"
ITEM_FEATURES_FILE = f"{ITEM_TOWER}/features.json"
CATALOGUE_FILE = "catalogue/items.parquet"
SEARCH_FILE = "search.json"
LINEAGE_FILE = "lineage.json"
GATE_FILE = "gate.json"


def shard_file(number: int) -> str:
    """Path of a shard within the release."""
    return f"shards/{number:05d}.faiss"


def stored_file(number: int) -> str:
    """Path of the vectors of 16 bits of a shard, within a release that re-ranks."""
    return f"shards/{number:05d}.vectors.arrow"


@dataclass(frozen=True)
class Search:
    """How to search a release; ``item_tower`` is the SHA-256 of the tower that made the vectors."""

    kind: str
    num_shards: int
    num_lists: int
    depths: tuple[Depth, ...]
    dim: int
    item_tower: str
    metric: str = "inner_product"
    factory: str = ""
    """The shards' kind in FAISS's own words."""
    rerank: bool = False
    """Whether vectors are stored beside the shards."""

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Self:
        """The inverse of ``asdict``."""
        return cls(**{**plain, "depths": tuple(Depth(**depth) for depth in plain["depths"])})


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
    user_tower: AnyUserTower
    user_encoders: Encoders
    context_encoders: Encoders
    index: ShardedIndex
    catalogue: pa.Table


def write_facts(store: Store, search: Search, lineage: Lineage, evidence: Evidence, verdict: Verdict) -> None:
    """Write the small files; the manifest follows when all is there."""
    for path, facts in ((SEARCH_FILE, asdict(search)), (LINEAGE_FILE, asdict(lineage))):
        store.write(path, json.dumps(facts, indent=2).encode())
    store.write(GATE_FILE, json.dumps({"evidence": asdict(evidence), "verdict": asdict(verdict)}, indent=2).encode())


def verify(store: Store, paths: Sequence[str] | None = None, *, quietly: bool = False) -> Manifest:
    """Check every file, or those of ``paths``, against the manifest, and that index and both towers were made together.

    Raises CorruptRelease naming the file; ``quietly`` is that of ``Manifest.verify``.
    """
    manifest = Manifest.read(store)
    manifest.verify(store, paths, quietly=quietly)
    search = search_of(store)
    lineage = lineage_of(store)
    for side, path, named in (
        ("user", f"{USER_TOWER}/{weights.USER_FILE}", lineage.user_tower),
        ("item", f"{ITEM_TOWER}/{weights.ITEM_FILE}", lineage.item_tower),
    ):
        held = manifest.checksums.get(path)
        if held is None:
            raise CorruptRelease(
                f"{store.uri}/{path} is not listed in its manifest: the release was altered, or made by an older"
                f" raycl; build it again with 'raycl index --force'"
            )
        if held != named:
            raise CorruptRelease(
                f"{store.uri}/{path} has SHA-256 {held[:12]}, the lineage names {named[:12]}: the {side} tower of"
                f" other towers than {lineage.towers} would meet this index"
            )
    if search.item_tower != lineage.item_tower:
        raise CorruptRelease(
            f"{store.uri}/{SEARCH_FILE} says its vectors come from item tower {search.item_tower[:12]}, lineage names"
            f" {lineage.item_tower[:12]}: index and user tower were not made together"
        )
    return manifest


def load(store: Store, *, quietly: bool = False) -> Release:
    """Verify the release whose root is ``store``, then load all that answers need, shards of lists as one.

    ``quietly``, where the process answers from another release meanwhile: it takes longer and delays them less.

    Raises CorruptRelease, naming the file, also for one that is as it was built and still cannot be read here.
    """
    verify(store, quietly=quietly)
    head = _head(store)
    search = search_of(store)
    return dataclasses.replace(head, index=_shards(store, search, range(search.num_shards)))


def load_head(store: Store, *, quietly: bool = False) -> Release:
    """``load`` of all but the shards, whose index is empty, and of whose files none is read; raises as it does."""
    verify(store, [USER_TOWER, CATALOGUE_FILE, SEARCH_FILE, LINEAGE_FILE], quietly=quietly)
    return _head(store)


def load_part(store: Store, part: int, parts: int, *, quietly: bool = False) -> tuple[ShardedIndex, int]:
    """Every ``parts``-th shard from number ``part`` on, as one index, and how many rows the vocabulary has.

    ``quietly`` is that of ``load``, and it raises as that does; the other shards' files are not read.
    """
    search = search_of(store)
    numbers = range(part, search.num_shards, parts)
    files = [shard_file(number) for number in numbers]
    files += [stored_file(number) for number in numbers] if search.rerank else []
    verify(store, [*files, CATALOGUE_FILE, SEARCH_FILE, LINEAGE_FILE], quietly=quietly)
    with _readable(store, CATALOGUE_FILE):
        num_rows = tables.read(store, CATALOGUE_FILE, ["item"]).num_rows
    return _shards(store, search, numbers), num_rows


def _head(store: Store) -> Release:
    side = UserSide.load(store.under(USER_TOWER))
    with _readable(store, FEATURES_FILE):
        encoders = Encoders.from_json(json.loads(store.read(FEATURES_FILE)))
    with _readable(store, CATALOGUE_FILE):
        catalogue = tables.read(store, CATALOGUE_FILE)
    name = Manifest.read(store).version
    return Release(name, side.tower, encoders, side.context, ShardedIndex([], search_of(store).depths), catalogue)


def _shards(store: Store, search: Search, numbers: Sequence[int]) -> ShardedIndex:
    with _readable(store, "shards"):
        shards = together((store.read_with(shard_file(number), build.read) for number in numbers), len(numbers))
        stored = [Stored.from_bytes(store.read(stored_file(number))) for number in numbers if search.rerank]
        return ShardedIndex(shards, search.depths, stored)


def load_shard(store: Store, search: Search, number: int) -> ShardedIndex:
    """One shard of a verified release, as an index of its own; CorruptRelease where it cannot be read here."""
    with _readable(store, shard_file(number)):
        return read_shard(store, number, search.depths, rerank=search.rerank)


def read_shard(store: Store, number: int, depths: Sequence[Depth], *, rerank: bool) -> ShardedIndex:
    """One shard as an index of its own, with its stored vectors where there are some."""
    stored = [Stored.from_bytes(store.read(stored_file(number)))] if rerank else []
    return ShardedIndex([store.read_with(shard_file(number), build.read)], depths, stored)


def lineage_of(store: Store) -> Lineage:
    """What the release under ``store`` came from."""
    with _readable(store, LINEAGE_FILE):
        return Lineage(**json.loads(store.read(LINEAGE_FILE)))


def search_of(store: Store) -> Search:
    """How the release under ``store`` is searched."""
    with _readable(store, SEARCH_FILE):
        return Search.from_json(json.loads(store.read(SEARCH_FILE)))


def item_encoders(store: Store) -> Encoders:
    """How the item tower of the release under ``store`` is told of an item."""
    with _readable(store, ITEM_FEATURES_FILE):
        return Encoders.from_json(json.loads(store.read(ITEM_FEATURES_FILE)))


def quality_of(store: Store) -> dict[str, float]:
    """What the gate measured of the release under ``store``, by its names; nothing where that cannot be read."""
    try:
        evidence = json.loads(store.read(GATE_FILE))["evidence"]
        names = ("index_recall", "recall", "popularity_recall", "recall_at", "num_vectors")
        return {name: float(evidence[name]) for name in names}
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return {}


@contextlib.contextmanager
def _readable(store: Store, path: str) -> Iterator[None]:
    """What a reader of ``path`` cannot make sense of becomes a CorruptRelease."""
    try:
        yield
    except (FileNotFoundError, KeyError, RuntimeError, TypeError, ValueError, pa.ArrowException) as error:
        raise CorruptRelease(
            f"{store.uri}/{path} cannot be read by this raycl ({type(error).__name__}: {error}): build the release"
            f" again with 'raycl index --force'"
        ) from error
