"""What the tasks of the index stage know, and what they leave for one another in the draft."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.index.nearest import Ids, Vectors
from raycl.model import weights
from raycl.storage import tables
from raycl.storage.versions import WORK, Draft, Version


class Asking(Protocol):
    """Whose held-out users are asked for: the pairs that have them, and the towers of these pairs."""

    @property
    def pairs(self) -> Version: ...

    @property
    def towers(self) -> Version: ...

    @property
    def config(self) -> Config: ...


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
    def retired(self) -> npt.NDArray[np.bool_]:
        """Of each row, whether its item may no longer be retrieved."""
        return Pairs.of(self.pairs).retired()

    @property
    def num_blocks(self) -> int:
        """Runs of ``index.items_per_block`` rows."""
        return -(-self.num_rows // self.config.index.items_per_block)

    @property
    def num_shards(self) -> int:
        """Parts of the index."""
        return self.config.index.num_shards

    @cached_property
    def dim(self) -> int:
        """Numbers of a vector."""
        return weights.load_spec(self.towers.store).model.dim

    def parts(self, shard: int) -> Iterator[tuple[Ids, Vectors]]:
        """Rows and vectors of one shard, ascending, those of one block at a time."""
        for block in range(self.num_blocks):
            yield from_table(tables.read_bucket(self.draft.store, vectors_file(block), shard))


def put(job: Job, name: str, array: npt.NDArray[Any]) -> None:
    """Leave an array for other tasks of this draft."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    job.draft.store.write(f"{WORK}/{name}.npy", content.getvalue())


def get(job: Job, name: str) -> npt.NDArray[Any]:
    """What ``put`` left."""
    found: npt.NDArray[Any] = np.load(io.BytesIO(job.draft.store.read(f"{WORK}/{name}.npy")), allow_pickle=False)
    return found


def vectors_file(block: int) -> str:
    """Path of one block's vectors, those of each shard together."""
    return f"{WORK}/vectors/block-{block:06d}.arrow"


def prints_file(block: int) -> str:
    """Path of the fingerprints of one block's vectors, in as many parts as there are shards, equal ones in one part."""
    return f"{WORK}/fingerprints/block-{block:06d}.arrow"


def as_table(rows: Ids, vectors: Vectors) -> pa.Table:
    """Rows and vectors as ``from_table`` reads them."""
    flat = pa.array(vectors.reshape(-1))
    return pa.table({"row": rows, "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})


def from_table(table: pa.Table) -> tuple[Ids, Vectors]:
    """Rows (n,) and vectors (n, dim)."""
    vectors = table["vector"].combine_chunks()
    dim = vectors.type.list_size
    return table["row"].to_numpy(), vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
