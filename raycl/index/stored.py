"""Vectors of 16 bits beside a compressed shard: exact scores, to 11 binary digits, of what its codes found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float32]

_NUMBERS_AT_ONCE = 1 << 22


class Stored:
    """Vectors (n, dim) of float16, of ascending vocabulary ``rows`` (n,)."""

    def __init__(self, rows: Ids, vectors: npt.NDArray[np.float16]) -> None:
        self.rows, self.vectors = rows, vectors

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def from_bytes(cls, content: bytes) -> Stored:
        """Read what ``write`` wrote, without a copy; pa.ArrowException where it is something else."""
        with pa.ipc.open_stream(pa.BufferReader(content)) as reader:
            table = reader.read_all()
        vectors = table["vector"].combine_chunks()
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
        return cls(table["row"].to_numpy(), flat.reshape(-1, vectors.type.list_size))

    def of(self, rows: Ids) -> Vectors:
        """The vectors (n, dim) of these rows, which are all held here."""
        return self.vectors[np.searchsorted(self.rows, rows)].astype(np.float32)

    def score(self, queries: Vectors, ids: Ids, scores: Scores, metric: str) -> None:
        """Put into ``scores`` (num_queries, any) the exact scores of those of ``ids`` that are held here."""
        if not len(self):
            return
        places = np.minimum(np.searchsorted(self.rows, ids), len(self) - 1)
        held = np.nonzero(self.rows[places] == ids)
        at_once = max(1, _NUMBERS_AT_ONCE // self.vectors.shape[1])
        for start in range(0, len(held[0]), at_once):
            some = tuple(part[start : start + at_once] for part in held)
            found, asked = self.vectors[places[some]].astype(np.float32), queries[some[0]]
            if metric == "l2":
                found -= asked
                scores[some] = -np.einsum("nd,nd->n", found, found)
            else:
                scores[some] = np.einsum("nd,nd->n", found, asked)


def write(stream: Any, parts: Iterable[tuple[Ids, Vectors]], dim: int) -> None:
    """Write rows and vectors, part after part, ascending over all of them."""
    kind = pa.list_(pa.float16(), dim)
    schema = pa.schema([("row", pa.int64()), ("vector", kind)])
    with pa.ipc.new_stream(stream, schema) as writer:
        for rows, vectors in parts:
            flat = pa.array(vectors.astype(np.float16).reshape(-1))
            writer.write_batch(pa.record_batch([pa.array(rows), pa.FixedSizeListArray.from_arrays(flat, dim)], schema))
