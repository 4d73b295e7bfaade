"""Which settings a baseline should have on a log: those that find events which are held out of its training part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from raycl.evaluation.metrics import Ints

MOST_EVENTS = 2_000_000
"""Of the users drawn to choose by: what a choice costs does not grow beyond."""
_QUESTIONS = 2_000
_BLOCK = 64

Scores = Callable[[sparse.csr_array], npt.NDArray[Any]]
"""Of histories (users, num_items), the scores (users, num_items)."""


@dataclass(frozen=True)
class Questions:
    """What some users are known by, and one item of each that they are asked for."""

    table: sparse.csr_array
    """(users, num_items): 1 where a user met an item, what is asked for left out"""
    user: Ints
    """(questions,) rows of ``table``"""
    item: Ints
    """(questions,)"""


def questions(user: Ints, item: Ints, time_ms: Ints, num_items: int, seed: int) -> Questions:
    """The last event of up to 2,000 users, of two items or more; any one of them where several are the last.

    Learned from are these users and others, drawn by ``seed``, up to 2 million events of them.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(int(user.max(initial=-1)) + 1)
    sizes = np.bincount(user, minlength=len(shuffled))[shuffled]
    chosen = shuffled[: max(int(np.searchsorted(np.cumsum(sizes), MOST_EVENTS, side="right")), 1)]
    number = np.full(len(shuffled), -1)
    number[chosen] = np.arange(len(chosen))
    kept = number[user] >= 0
    row, column = number[user[kept]], item[kept]
    order = np.lexsort((generator.random(len(row)), time_ms[kept], row))
    last = order[np.flatnonzero(np.diff(row[order], append=-1))]
    cells = np.unique(row * num_items + column)
    asked = last[np.bincount(cells // num_items, minlength=len(chosen))[row[last]] > 1][:_QUESTIONS]
    known = np.setdiff1d(cells, row[asked] * num_items + column[asked], assume_unique=True)
    ones = np.ones(len(known), np.float32)
    table = sparse.csr_array((ones, (known // num_items, known % num_items)), shape=(len(chosen), num_items))
    return Questions(table, row[asked], column[asked])


def quality(asked: Questions, scores: Scores) -> float:
    """The mean of ``1 / log2(2 + items before it)`` over what is asked for; of equal scores half are before it."""
    gained: list[npt.NDArray[np.float64]] = [np.zeros(0)]
    for start in range(0, len(asked.user), _BLOCK):
        block = slice(start, start + _BLOCK)
        history = asked.table[asked.user[block]]
        found = np.asarray(scores(history), dtype=np.float64)
        own = np.take_along_axis(found, asked.item[block, None], 1)
        found[history.nonzero()] = -np.inf
        before = (found > own).sum(1) + ((found == own).sum(1) - 1) / 2
        gained.append(1.0 / np.log2(2.0 + before))
    every = np.concatenate(gained)
    return float(every.mean()) if len(every) else 0.0


def best(values: Sequence[float], quality_of: Callable[[float], float]) -> float:
    """The value of the highest quality, the first of equal ones."""
    return max(values, key=quality_of) if len(values) > 1 else values[0]
