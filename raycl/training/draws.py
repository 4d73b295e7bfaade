"""What chance decides in a step: functions of the seed and the step's number, so of no process's state."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from raycl.config_loss import ViewContrast
from raycl.data import views
from raycl.data.hashing import mix

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

_UNIFORM, _ORDER, _VIEWS, _FEATURES, _TIMES, _CONTEXT, _MINED, _EVENTS = range(8)


def hidden(seed: int, number: int, items: npt.NDArray[np.int32] | Ints, share: float) -> Flags:
    """Which items hide their own embedding in this step: about ``share`` of them, an item the same wherever it is."""
    key = mix(mix(np.array([seed % 2**64], dtype=np.uint64)) ^ np.uint64(number))
    drawn = mix(items.astype(np.uint64) ^ key)
    return np.asarray(drawn < np.uint64(share * (2**64 - 2**11)))


def uniform(seed: int, number: int, count: int, num_items: int) -> Ints:
    """Items (count,) drawn evenly from all, with repetition."""
    return np.asarray(_generator(seed, number, _UNIFORM).integers(0, num_items, count))


def order(seed: int, number: int, num_columns: int) -> Ints:
    """A permutation of the columns; a row reads it from a place of its own."""
    return np.asarray(_generator(seed, number, _ORDER).permutation(num_columns))


def two_views(
    seed: int, number: int, history: Rows, how: ViewContrast, neighbours: Rows | None = None
) -> tuple[Rows, Rows]:
    """Two changed views of the histories of a whole global batch; a part of it alone would be drawn otherwise."""
    shares = views.Augmentation(how.crop, how.mask, how.reorder, how.substitute)
    return views.two_views(history, shares, _generator(seed, number, _VIEWS), neighbours)


def timeless(seed: int, number: int, num_rows: int, share: float) -> Flags:
    """Which pairs of a global batch (num_rows,) hide the times of their history: about ``share`` of them."""
    return np.asarray(_generator(seed, number, _TIMES).random(num_rows) < share)


def without_context(seed: int, number: int, num_rows: int, share: float) -> Flags:
    """Which pairs of a global batch (num_rows,) hide what their request carries: about ``share`` of them."""
    return np.asarray(_generator(seed, number, _CONTEXT).random(num_rows) < share)


def forgotten(seed: int, number: int, num_rows: int, num_events: int, share: float) -> Flags:
    """Which events of a global batch's histories (num_rows, num_events) are hidden: about ``share`` of them."""
    drawn = _generator(seed, number, _EVENTS).random((num_rows, num_events), dtype=np.float32)
    return np.asarray(drawn < share)


def mined(seed: int, number: int, num_rows: int) -> npt.NDArray[np.float64]:
    """Where each pair of a global batch (num_rows,) begins among its mined negatives, as a share of them."""
    return _generator(seed, number, _MINED).random(num_rows)


def feature_generator(seed: int, number: int) -> np.random.Generator:
    """For ``masking.halves``."""
    return _generator(seed, number, _FEATURES)


def _generator(seed: int, number: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, number, purpose])
