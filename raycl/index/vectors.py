"""What may be wrong with vectors, and which of them are equal; on one block of items at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raycl.data.hashing import mix

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Checked:
    """Of a block: which vectors can be searched, and how many cannot, by reason."""

    usable: npt.NDArray[np.bool_]
    num_null: int
    """Zero in every number: such a vector is near nothing and far from nothing."""
    num_not_finite: int


def check(vectors: Vectors, active: npt.NDArray[np.bool_]) -> Checked:
    """Look at the ``active`` ones of ``vectors`` (n, dim); the others are neither usable nor counted."""
    finite = np.isfinite(vectors).all(axis=1)
    null = finite & ~vectors.any(axis=1)
    return Checked(active & finite & ~null, int((active & null).sum()), int((active & ~finite).sum()))


def fingerprints(vectors: Vectors) -> npt.NDArray[np.uint64]:
    """A hash (n,) of each of ``vectors`` (n, dim), alike for equal ones and hardly ever for others.

    Multilinear modulo 2^64 over the bits of each number (Lemire and Kaser, 2014), with fixed odd factors.
    """
    bits = (vectors + np.float32(0.0)).view(np.uint32).astype(np.uint64)  # the sum makes -0 to 0
    factors = mix(np.arange(vectors.shape[1], dtype=np.uint64)) | np.uint64(1)
    return mix((bits * factors).sum(axis=1, dtype=np.uint64))


def num_repeated(prints: npt.NDArray[np.uint64]) -> int:
    """How many vectors equal another one that is counted already."""
    return len(prints) - len(np.unique(prints))
