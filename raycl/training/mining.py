"""Hard negatives from the towers before: of each target, items that those took for near it and yet not for the same.

They are mined for each item and not for each pair, so that a table of the catalogue's length holds them all.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raycl.config_loss import Mined
from raycl.data.columns import whole
from raycl.data.handoff import Pairs
from raycl.data.id_map import IdMap
from raycl.data.packed import Ints, Rows
from raycl.errors import RayclError
from raycl.model import embed, inputs, weights
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Draft, Version, Workspace

log = logging.getLogger(__name__)

FOLDER = "mined"
BLOCK = 16_384
"""Items of a task."""

_CANDIDATES = 262_144
_QUERIES = 256

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Previous:
    """Finished towers, and where they put the items of other pairs."""

    name: str
    vectors: Vectors
    """(num_items, dim) of unit length; NaN for an item that they do not know"""


def previous(workspace: Workspace, pairs: Pairs) -> Previous | None:
    """The newest finished towers that say something of the items of ``pairs``; None where there are none.

    Towers that this raycl cannot read, and those of pairs that are gone, are passed over with a warning.
    """
    items = whole(pairs.vocabulary()["item"])
    for version in workspace.readable("towers"):
        try:
            found = _vectors(version, workspace, items)
        except RayclError as error:
            log.warning("mined negatives: towers %s are passed over: %s", version.name, error)
            continue
        if np.isfinite(found).all(axis=1).any():
            return Previous(version.name, found)
        log.warning("mined negatives: towers %s are passed over: they know none of these items", version.name)
    return None


def _vectors(version: Version, workspace: Workspace, items: Any) -> Vectors:
    """Vectors (items, dim) of these ids by finished towers, NaN for those that they do not know."""
    before = Pairs.of(workspace.open("pairs", version.manifest.inputs["pairs"]).verified("vocab"))
    known = whole(before.vocabulary()["item"])
    tower = weights.load_item(version.verified(weights.ITEM_FILE, weights.CONFIG_FILE).store)
    features = inputs.from_table(before.encoded("items"), before.encoders("items"), before.num_items)
    vectors = embed.items(tower, features)
    found = np.full((len(items), vectors.shape[1]), np.nan, dtype=np.float32)
    if known.type == items.type:
        rows = IdMap(known).rows(items)
        found[rows >= 0] = vectors[rows[rows >= 0]]
    return found


def candidates(vectors: Vectors, retired: npt.NDArray[np.bool_], seed: int) -> Ints:
    """Items that may be mined, ascending: those that have a vector and may be retrieved, or 262,144 drawn from them."""
    usable = np.flatnonzero(np.isfinite(vectors).all(axis=1) & ~retired)
    if len(usable) <= _CANDIDATES:
        return usable
    return np.sort(np.random.default_rng([seed, 3]).choice(usable, _CANDIDATES, replace=False))


def mine(vectors: Vectors, rows: Ints, among: Ints, how: Mined, generator: np.random.Generator) -> Rows:
    """Of each item of ``rows`` some of ``among`` (ascending): (rows, how.pool), then -1.

    Those that rank from ``range_min`` to before ``range_max`` by cosine, itself left out, and whose cosine is at most
    ``max_share`` of the item's with itself; ``pool`` of them are drawn evenly. Ranks and share are those of
    ``mine_hard_negatives`` in sentence-transformers: what is nearest is often the same thing by another name.
    """
    found = np.full((len(rows), how.pool), -1, dtype=np.int32)
    held = torch.from_numpy(vectors[among])
    for start in range(0, len(rows), _QUERIES):
        part = rows[start : start + _QUERIES]
        scores = torch.from_numpy(vectors[part]) @ held.T
        itself = np.searchsorted(among, part).clip(max=len(among) - 1)
        is_there = np.flatnonzero(among[itself] == part)
        scores[torch.from_numpy(is_there), torch.from_numpy(itself[is_there])] = -torch.inf
        best, places = scores.topk(min(how.range_max, len(among)), dim=1)
        usable = ((best <= how.max_share) & best.isfinite()).numpy()
        usable[:, : how.range_min] = False
        order = np.where(usable, generator.random(usable.shape), 2.0).argsort(axis=1, kind="stable")[:, : how.pool]
        chosen = np.where(np.take_along_axis(usable, order, 1), among[np.take_along_axis(places.numpy(), order, 1)], -1)
        found[start : start + len(part), : chosen.shape[1]] = chosen
    return found


def num_blocks(num_items: int) -> int:
    """Tasks that ``mine_block`` makes of a vocabulary."""
    return -(-num_items // BLOCK)


def mine_block(draft: Draft, block: int, vectors: Vectors, among: Ints, how: Mined, seed: int) -> dict[str, Any]:
    """Leave what is mined for one run of items in the draft; the record says for how many there is some."""
    task = f"mine-{block:06d}"
    if (record := draft.task_done(task)) is not None:
        return record
    rows = np.arange(block * BLOCK, min((block + 1) * BLOCK, len(vectors)))
    found = mine(vectors, rows, among, how, np.random.default_rng([seed, 4, block]))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1)), how.pool)
    tables.write(draft.store, f"{FOLDER}/part-{block:06d}.parquet", pa.table({"row": rows, "negatives": lists}))
    record = {"items": int((found >= 0).any(axis=1).sum())}
    draft.finish_task(task, record)
    return record


def load(store: Store) -> Rows | None:
    """What all tasks left, (num_items, pool); None where nothing was mined."""
    parts = [tables.read(store, f"{FOLDER}/{name}", ["negatives"]) for name in sorted(store.names(FOLDER))]
    if not parts:
        return None
    lists = whole(pa.concat_tables(parts)["negatives"])
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, lists.type.list_size))
