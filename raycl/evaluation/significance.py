"""Whether two runs differ over the same users by more than chance, and by how many comparisons that was looked for."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from raycl.data.hashing import mix
from raycl.evaluation.bootstrap import Hashes
from raycl.evaluation.metrics import Floats

METHOD = "paired randomisation test over users (signs of the differences), two-sided"
_USERS_AT_ONCE = 2_048

Correction = Literal["holm", "benjamini_hochberg"]


def p_values(differences: Floats, users: Hashes, num_rounds: int, seed: int) -> Floats:
    """Of each column of ``differences`` (users, columns), how likely its sum is where the two runs are alike.

    Each round turns the sign of each user's difference or leaves it (Fisher's randomisation test; for retrieval
    Smucker et al., CIKM 2007). The share of rounds whose sum is as far from 0 as the one found, that one counted too.
    Signs are a function of the hash of the user and of the seed.
    """
    found = np.abs(differences.sum(0))
    sums = np.zeros((num_rounds, differences.shape[1]))
    for start in range(0, len(differences), _USERS_AT_ONCE):
        part = slice(start, start + _USERS_AT_ONCE)
        sums += signs(users[part], num_rounds, seed) @ differences[part]
    slack = 1e-9 * np.abs(differences).sum(0)  # sums of the same numbers in another order
    return np.asarray((1 + (np.abs(sums) >= found - slack).sum(0)) / (num_rounds + 1), dtype=np.float64)


def signs(users: Hashes, num_rounds: int, seed: int) -> npt.NDArray[np.float64]:
    """1 or -1 for each round and user, (num_rounds, users)."""
    key = mix(mix(np.array([seed % 2**64], np.uint64)) + np.uint64(1))
    rounds = mix(key ^ np.arange(-(-num_rounds // 64), dtype=np.uint64))
    drawn = np.ascontiguousarray(mix(users[:, None] ^ rounds)).view(np.uint8)
    bits = np.unpackbits(drawn, axis=1)[:, :num_rounds].T
    return np.where(bits, -1.0, 1.0)


def corrected(p: Floats, correction: Correction) -> Floats:
    """P-values corrected for being so many.

    ``holm`` bounds the chance of any false finding (Holm 1979), ``benjamini_hochberg`` the expected share of false ones
    among what is found (Benjamini and Hochberg 1995).
    """
    size = len(p)
    order = np.argsort(p, kind="stable")
    ranks = np.arange(1, size + 1)
    adjusted = np.empty(size)
    if correction == "holm":
        adjusted[order] = np.maximum.accumulate((size - ranks + 1) * p[order])
    else:
        adjusted[order] = np.minimum.accumulate((size / ranks * p[order])[::-1])[::-1]
    return np.minimum(adjusted, 1.0)
