"""Histories with something wrong, to see how much towers lose by it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from raycl.config import EvaluationConfig
from raycl.data.hashing import mix
from raycl.data.packed import Ints, Rows
from raycl.evaluation.bootstrap import Hashes

_SALT = {"dropped_history": 0x64726F70, "noisy_history": 0x6E6F6973}


def both(history: Rows, users: Hashes, active: Ints, config: EvaluationConfig) -> dict[str, Rows]:
    """The histories (users, places) with a share of their events left out, and with it exchanged for other items.

    What happens to a place is a function of the hash of its user and of the seed. ``active`` are the rows that an
    exchanged event may be of, each as likely as any other.
    """
    chosen = {name: _drawn(history.shape, users, config.seed, salt) for name, salt in _SALT.items()}
    hit = {name: (drawn < config.perturbed_share) & (history >= 0) for name, drawn in chosen.items()}
    other = _drawn(history.shape, users, config.seed, 0x6F746872)
    items = active[np.minimum((other * len(active)).astype(np.int64), len(active) - 1)]
    return {
        "dropped_history": np.where(hit["dropped_history"], -1, history).astype(np.int32),
        "noisy_history": np.where(hit["noisy_history"], items, history).astype(np.int32),
    }


def _drawn(shape: tuple[int, ...], users: Hashes, seed: int, salt: int) -> npt.NDArray[np.float64]:
    """Numbers [0, 1) for each place of each user."""
    key: Hashes = mix(np.array([seed % 2**64], np.uint64)) ^ np.uint64(salt)
    places: Hashes = mix(key) ^ np.arange(shape[1], dtype=np.uint64)
    drawn = mix(users[:, None] ^ mix(places))
    return np.asarray((drawn >> np.uint64(11)) * 2.0**-53, dtype=np.float64)
