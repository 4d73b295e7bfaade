"""Who is ranked for whom: users in blocks, what they met and what is to be found, and the ways to score items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from raycl.data.packed import Sequences, Spans, ranges
from raycl.evaluation import topk
from raycl.evaluation.metrics import Ints
from raycl.evaluation.topk import Cells, Score

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """A run of users, and cells (user in the run, item row) of what they met and of what is to be found.

    Each ``wanted`` cell is there once, and is of an event of weight ``rating``. It has not been met, but where things
    may be met again (``repeats``).
    """

    users: slice
    met: tuple[Ints, Ints]
    wanted: tuple[Ints, Ints]
    rating: Float32s
    num_items: int
    repeats: bool = False

    @property
    def left_out(self) -> tuple[Ints, Ints]:
        """Cells that are no candidates: what was met, unless it may be met again."""
        met, item = self.met
        return (met[:0], item[:0]) if self.repeats else (met, item)

    def __len__(self) -> int:
        return int(self.users.stop - self.users.start)

    @cached_property
    def history(self) -> sparse.csr_array:
        """How often each user met each item, (users, num_items)."""
        shape = (len(self), self.num_items)
        return sparse.csr_array((np.ones(len(self.met[0]), np.float32), self.met), shape=shape)

    @cached_property
    def num_targets(self) -> Ints:
        """Of each user, (users,)."""
        return np.bincount(self.wanted[0], minlength=len(self))

    @cached_property
    def num_others(self) -> Ints:
        """Of each user, the candidates that are no targets, (users,)."""
        met: Ints = np.diff(self.history.indptr)
        return self.num_items - (0 if self.repeats else met) - self.num_targets


@dataclass(frozen=True)
class Ranking:
    """Item rows (users, k), the best first, -1 where a list ends.

    Of each wanted cell, where they were worked out: its score, and how many of the user's candidates that are no
    targets score higher, and how many the same.
    """

    rows: Ints
    scores: Float32s | None = None
    higher: Ints | None = None
    same: Ints | None = None


Rank = Callable[[Block, int], Ranking]
"""The best ``k`` items of each user of a block, none that is left out."""

Scorer = Callable[[Block], Score]


def exact(scorer: Scorer, *, auc: bool, device: str = "cpu") -> Rank:
    """Rank the full catalogue by ``scorer``, which scores on ``device``; with ``auc`` count what beats each target."""

    def rank(block: Block, k: int) -> Ranking:
        score = scorer(block)
        size = len(block), block.num_items
        apart, wanted = (_cells(cells, device) for cells in (block.left_out, block.wanted))
        rows, _, scores = topk.best(score, *size, k, apart, wanted, device=device)
        found = Ranking(rows.cpu().numpy(), scores.cpu().numpy())
        if not auc:
            return found
        both = [np.concatenate(pair) for pair in zip(block.left_out, block.wanted, strict=True)]
        left_out = _cells((both[0], both[1]), device)
        higher, same = topk.beaten_by(score, *size, wanted, scores, left_out, device=device)
        return Ranking(found.rows, found.scores, higher.cpu().numpy(), same.cpu().numpy())

    return rank


def by_vectors(users: Tensor, items: Tensor) -> Scorer:
    """Inner products of ``users`` (all users, dim) and ``items`` (num_items, dim)."""
    return lambda block: topk.vectors(users[block.users].to(items.device), items)


def by_factors(fold_in: Callable[[sparse.csr_array], Float32s], items: Tensor) -> Scorer:
    """Inner products of ``items`` and the vectors that ``fold_in`` makes of histories (users, num_items)."""
    return lambda block: topk.vectors(torch.from_numpy(fold_in(block.history)), items)


def by_counts(counts: Ints) -> Scorer:
    """The same for all: every item by its count."""
    # Places among the distinct counts are exact in float32, where large counts are not.
    places = torch.from_numpy(np.unique(counts, return_inverse=True)[1].astype(np.float32))

    def score(first: int, stop: int, out: Tensor) -> None:
        out.copy_(places[first:stop].expand_as(out))

    return lambda _: score


def by_neighbours(neighbours: sparse.csr_array) -> Scorer:
    """The sum over the distinct items that a user met of what they say of an item, (num_items, num_items)."""

    def scorer(block: Block) -> Score:
        met = block.history.copy()
        met.data[:] = 1.0
        columns = (met @ neighbours).tocsc()

        def score(first: int, stop: int, out: Tensor) -> None:
            out.copy_(torch.from_numpy(columns[:, first:stop].toarray()))

        return score

    return scorer


def blocks(
    sequences: Sequences, spans: Spans, num_items: int, users_per_block: int, *, repeats: bool = False
) -> Iterator[Block]:
    """The users in runs.

    ``spans`` say where each user's context ends and where the targets lie. A target that the user met before cannot be
    retrieved, since met items are left out; it is not wanted, but for ``repeats``. One that comes twice is wanted once.
    """
    for start in range(0, len(sequences), users_per_block):
        users = slice(start, min(start + users_per_block, len(sequences)))
        met_places, met_user = ranges(sequences.offsets[:-1][users], spans.context_end[users])
        places, user = ranges(spans.first[users], spans.stop[users])
        met = met_user * num_items + sequences.items[met_places]
        cells, first = np.unique(user * num_items + sequences.items[places], return_index=True)
        new = np.full(len(cells), True) if repeats else ~np.isin(cells, met)
        cells, ratings = cells[new], sequences.weights[places[first[new]]]
        yield Block(
            users,
            (met // num_items, met % num_items),
            (cells // num_items, cells % num_items),
            ratings,
            num_items,
            repeats,
        )


def _cells(cells: tuple[Ints, Ints], device: str) -> Cells:
    return Cells.of(*(torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in cells))
