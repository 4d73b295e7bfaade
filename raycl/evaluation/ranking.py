"""Exact top-k of the full catalogue, users in blocks, items that a user has already met left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raycl.data.packed import Ints, Sequences, Spans, ranges
from raycl.evaluation.metrics import Sums, measure


@dataclass(frozen=True)
class Block:
    """A run of users, and the cells (user in the run, item row) of what they met and of what is to be found."""

    users: slice
    met: tuple[Ints, Ints]
    wanted: tuple[Ints, Ints]

    def __len__(self) -> int:
        return int(self.users.stop - self.users.start)


Rank = Callable[[Block, int], Ints]
"""Item rows (users, k) of a block, the best first and none that the user met, -1 where a list ends early."""


def by_score(score: Callable[[slice], Tensor]) -> Rank:
    """Rank by ``score``, which gives a run of users a new tensor (users, num_items); higher is better."""

    def rank(block: Block, k: int) -> Ints:
        scores = score(block.users)
        scores[torch.from_numpy(block.met[0]), torch.from_numpy(block.met[1])] = -torch.inf
        values, rows = scores.topk(k, dim=1)
        return np.asarray(torch.where(values > -torch.inf, rows, -1).numpy())

    return rank


def by_popularity(train_counts: Ints) -> Rank:
    """Rank every item by its events in training, ties by row: the same order for all, less what each user met."""
    order = np.lexsort((np.arange(len(train_counts)), -train_counts))
    places = np.empty_like(order)
    places[order] = np.arange(len(order))

    def rank(block: Block, k: int) -> Ints:
        user, item = block.met
        most = int(np.bincount(user, minlength=1).max())
        head = order[: k + most]
        met = np.zeros((len(block), len(head)), dtype=np.bool_)
        inside = places[item] < len(head)
        met[user[inside], places[item[inside]]] = True
        first = np.argsort(met, axis=1, kind="stable")[:, :k]
        return np.where(np.take_along_axis(met, first, axis=1), -1, head[first])

    return rank


def evaluate(
    sequences: Sequences,
    spans: Spans,
    rank: Rank,
    ks: tuple[int, ...],
    num_items: int,
    users_per_block: int,
    measured: npt.NDArray[np.bool_] | None = None,
) -> Sums:
    """Metrics of every user, or of the ``measured`` (users,), with a target that is not already in the context.

    ``spans`` say where each user's context ends and where the targets lie. A target that the user met before cannot be
    retrieved, since met items are left out; it is not counted.
    """
    sums = Sums()
    k = min(max(ks), num_items)
    for block in _blocks(sequences, spans, users_per_block):
        rows = rank(block, k)
        wanted = np.unique(block.wanted[0] * num_items + block.wanted[1])
        hits = np.isin(np.arange(len(block))[:, None] * num_items + rows, wanted) & (rows >= 0)
        num_targets = np.bincount(wanted // num_items, minlength=len(block))
        kept = num_targets > 0
        if measured is not None:
            kept &= measured[block.users]
        sums.add(measure(rows[kept], hits[kept], num_targets[kept], ks, num_items))
    return sums


def _blocks(sequences: Sequences, spans: Spans, users_per_block: int) -> Iterator[Block]:
    for start in range(0, len(sequences), users_per_block):
        users = slice(start, min(start + users_per_block, len(sequences)))
        met = _cells(sequences, sequences.offsets[:-1][users], spans.context_end[users])
        targets = _cells(sequences, spans.first[users], spans.stop[users])
        new = ~_among(targets, met)
        yield Block(users, met, (targets[0][new], targets[1][new]))


def _cells(sequences: Sequences, starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
    """User in the run, and item row, of the events from each start to before its stop."""
    places, owner = ranges(starts, stops)
    return owner, sequences.items[places].astype(np.int64)


def _among(cells: tuple[Ints, Ints], others: tuple[Ints, Ints]) -> npt.NDArray[np.bool_]:
    """Whether each cell is one of the others."""
    width = int(max(cells[1].max(initial=0), others[1].max(initial=0))) + 1
    return np.asarray(np.isin(cells[0] * width + cells[1], others[0] * width + others[1]))
