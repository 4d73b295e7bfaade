"""Which events of the history carried an item: Shapley values of its score, which add up to it.

The players are the events that the tower reads, and the worth of some of them is the score of the item for a user who
had met those alone, in the same order. The values add up to the score less that of the empty history whatever the tower
does with a history: in any order in which events are added, their differences telescope.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Subsets = npt.NDArray[np.bool_]
Worth = Callable[[Subsets], Values]
"""Of each subset (subsets, events) of the events, what each item (subsets, items) scores by it."""

EXACT_UP_TO = 7
"""Events whose every subset is looked at, 128 of them; more are judged by drawn orders."""
NUM_ORDERS = 16
"""Drawn orders of many events; every second one is the one before it backwards (antithetic sampling)."""


def shapley(worth: Worth, num_events: int, seed: int = 0) -> tuple[Values, Values]:
    """The worth of no event (items,), and the value (events, items) of each event.

    Together they are the worth of all events, but for rounding. Exact for up to ``EXACT_UP_TO`` events (Shapley 1953);
    beyond that the mean over ``NUM_ORDERS`` orders drawn by the seed (Castro, Gómez and Tejada 2009, section 3).
    """
    return _exact(worth, num_events) if num_events <= EXACT_UP_TO else _drawn(worth, num_events, seed)


def _exact(worth: Worth, num_events: int) -> tuple[Values, Values]:
    """Every subset in the order of its bits, and each event's differences weighed by the subset's size."""
    numbers = np.arange(2**num_events)
    subsets = (numbers[:, None] >> np.arange(num_events)) & 1 == 1
    worths = worth(subsets)
    sizes = subsets.sum(1)
    weights = np.array([1.0 / (num_events * math.comb(num_events - 1, size)) for size in range(num_events)])
    values = np.zeros((num_events, worths.shape[1]))
    for event in range(num_events):
        without = np.flatnonzero(~subsets[:, event])
        differences = worths[without + 2**event] - worths[without]
        values[event] = weights[sizes[without]] @ differences
    return worths[0], values


def _drawn(worth: Worth, num_events: int, seed: int) -> tuple[Values, Values]:
    generator = np.random.default_rng(seed)
    forth = [generator.permutation(num_events) for _ in range(NUM_ORDERS // 2)]
    orders = [one for drawn in forth for one in (drawn, drawn[::-1])]
    ranks = np.array([np.argsort(one) for one in orders])
    steps = np.arange(num_events + 1)[None, :, None]
    subsets = ranks[:, None, :] < steps  # (orders, steps, events): the first so many of each order
    worths = worth(subsets.reshape(-1, num_events)).reshape(len(orders), num_events + 1, -1)
    differences = np.diff(worths, axis=1)
    values = np.zeros((num_events, worths.shape[2]))
    for one, gained in zip(orders, differences, strict=True):
        values[one] += gained / len(orders)
    return worths[0, 0], values
