"""Exact top-k of the full catalogue, users in blocks, items that a user has already met left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raycl.data.reader import Sequences
from raycl.evaluation.metrics import Sums, measure

Score = Callable[[slice], Tensor]
"""Scores (users, num_items) of a run of users; higher is better."""


def evaluate(sequences: Sequences, score: Score, ks: tuple[int, ...], num_items: int, users_per_block: int) -> Sums:
    """Metrics of every user with a target that is not already in the context.

    A target that the user met before cannot be retrieved, since met items are left out; it is not counted.
    """
    sums = Sums()
    k = min(max(ks), num_items)
    for users, met, wanted in _blocks(sequences, users_per_block):
        scores = score(users).clone()
        scores[met[0], met[1]] = -torch.inf
        values, ranked = scores.topk(k, dim=1)
        rows = torch.where(values > -torch.inf, ranked, -1)
        is_target = torch.zeros(scores.shape, dtype=torch.bool)
        is_target[wanted[0], wanted[1]] = True
        hits = is_target.gather(1, ranked) & (rows >= 0)
        num_targets = is_target.sum(1).numpy()
        kept = num_targets > 0
        sums.add(measure(rows.numpy()[kept], hits.numpy()[kept], num_targets[kept], ks, num_items))
    return sums


_Cells = tuple[Tensor, Tensor]


def _blocks(sequences: Sequences, users_per_block: int) -> Iterator[tuple[slice, _Cells, _Cells]]:
    """Runs of users with the cells (user in block, item) of what they met, and of what is to be found."""
    for start in range(0, len(sequences), users_per_block):
        users = slice(start, min(start + users_per_block, len(sequences)))
        places = slice(int(sequences.offsets[users.start]), int(sequences.offsets[users.stop]))
        sizes = np.diff(sequences.offsets[users.start : users.stop + 1])
        owner = np.repeat(np.arange(len(sizes)), sizes)
        within = np.arange(places.stop - places.start) - (sequences.offsets[users][owner] - places.start)
        items = sequences.items[places].astype(np.int64)
        is_target = within >= sequences.first_target[users][owner]
        met = (torch.from_numpy(owner[~is_target]), torch.from_numpy(items[~is_target]))
        new = is_target & ~_met_before(owner, items, is_target)
        yield users, met, (torch.from_numpy(owner[new]), torch.from_numpy(items[new]))


def _met_before(
    owner: npt.NDArray[np.int64], items: npt.NDArray[np.int64], is_target: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Whether each event's item is among its user's context."""
    keys = owner * (int(items.max(initial=0)) + 1) + items
    return np.asarray(np.isin(keys, keys[~is_target]))


def popularity(train_counts: npt.NDArray[np.int64]) -> Tensor:
    """Scores (1, num_items) that rank every item by its events in training, ties by row; no two are equal."""
    order = np.lexsort((np.arange(len(train_counts)), -train_counts))
    scores = np.empty(len(order), dtype=np.float64)
    scores[order] = -np.arange(len(order))
    return torch.from_numpy(scores)[None, :]
