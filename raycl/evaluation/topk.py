"""Exact top-k of a whole catalogue, item block by item block: no row of scores is ever held whole.

A block of scores is made while it fits the processor's cache, and of each group of its columns the highest is compared
with the user's k-th best so far. Few groups pass, and what passes is gathered until there is enough to sort.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Score = Callable[[int, int, Tensor], None]
"""Writes the scores (users, stop - first) of the items from ``first`` to before ``stop``; higher is better."""

GROUP = 32
_ITEMS = {"cpu": 2_048, "cuda": 65_536}
_PENDING = 2
"""Candidates that wait, in k a user, before they are sorted in."""


@dataclass(frozen=True)
class Cells:
    """Some pairs of a user and an item, in ascending order of item; ``order`` is where each was given."""

    user: Tensor
    item: Tensor
    order: Tensor

    @classmethod
    def of(cls, user: Tensor, item: Tensor) -> Cells:
        """The cells of these users (places in the block) and items, in any order."""
        ascending, order = item.sort(stable=True)
        return cls(user[order], ascending, order)

    def __len__(self) -> int:
        return len(self.item)

    def cuts(self, starts: list[int], end: int) -> list[int]:
        """Where the cells of each block of items begin, and where those of the last end."""
        edges = torch.tensor([*starts, end], device=self.item.device)
        return list(torch.searchsorted(self.item, edges).tolist())


def vectors(users: Tensor, items: Tensor) -> Score:
    """Scores that are inner products in float32 of ``users`` (users, dim) and ``items`` (num_items, dim)."""

    def score(first: int, stop: int, out: Tensor) -> None:
        torch.mm(users, items[first:stop].T, out=out)

    return score


def without_copy(array: npt.NDArray[np.float32]) -> Tensor:
    """The array as a tensor that must not be written to, also where it lies in memory that processes share."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def best(
    score: Score,
    num_users: int,
    num_items: int,
    k: int,
    met: Cells,
    wanted: Cells | None = None,
    *,
    device: str = "cpu",
    items_per_block: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Item rows and scores (num_users, k), the best first, and the scores of the ``wanted`` cells as they were given.

    Of equal scores the lower row goes first. Items that the user ``met`` are left out, and so are those that score
    -inf; a list that ends early is filled up with -1 and -inf. No score may be NaN. Memory is that of one block of
    scores and a few k a user, however many items there are.
    """
    kept = _Kept(num_users, k, device)
    found = torch.empty(len(wanted) if wanted else 0, device=device)
    for block in _blocks(score, num_users, num_items, met, device, items_per_block, wanted):
        if wanted is not None:
            part = slice(*block.wanted)
            found[wanted.order[part]] = block.scores[wanted.user[part], wanted.item[part] - block.first]
        block.hide(met)
        kept.offer(block.first, block.scores)
    rows, scores = kept.sorted()
    return rows, scores, found


def beaten_by(
    score: Score,
    num_users: int,
    num_items: int,
    wanted: Cells,
    scores: Tensor,
    left_out: Cells,
    *,
    device: str = "cpu",
    items_per_block: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Of each wanted cell, how many of the user's candidates score higher than its ``scores``, and how many the same.

    Items of ``left_out`` are no candidates. The scores are what ``best`` returned of the same cells, by blocks of the
    same size, so that a cell equals itself to the last bit.
    """
    higher, same = (torch.zeros(len(wanted), dtype=torch.int64, device=device) for _ in range(2))
    user = torch.empty_like(wanted.user)
    user[wanted.order] = wanted.user
    rounds = list(_rounds(user))
    for block in _blocks(score, num_users, num_items, left_out, device, items_per_block):
        block.hide(left_out)
        for cells in rounds:
            mine, bar = block.scores[user[cells]], scores[cells, None]
            higher[cells] += (mine > bar).sum(1)
            same[cells] += (mine == bar).sum(1)
    return higher, same


def _rounds(user: Tensor) -> Iterator[Tensor]:
    """The cells, cut so that each run has a user at most once."""
    order = user.argsort(stable=True)
    sizes = torch.bincount(user) if len(user) else user
    turn = torch.arange(len(user), device=user.device) - (sizes.cumsum(0) - sizes)[user[order]]
    for number in range(int(turn.max()) + 1 if len(turn) else 0):
        yield order[turn == number]


@dataclass
class _Block:
    """Scores (users, items_per_block) of the items from ``first`` on; -inf beyond the last."""

    first: int
    scores: Tensor
    hidden: tuple[int, int]
    wanted: tuple[int, int]

    def hide(self, cells: Cells) -> None:
        part = slice(*self.hidden)
        self.scores[cells.user[part], cells.item[part] - self.first] = -torch.inf


def _blocks(
    score: Score,
    num_users: int,
    num_items: int,
    hidden: Cells,
    device: str,
    items_per_block: int | None,
    wanted: Cells | None = None,
) -> Iterator[_Block]:
    size = items_per_block or _ITEMS[torch.device(device).type]
    size = -(-min(size, num_items) // GROUP) * GROUP
    scores = torch.empty(num_users, size, device=device)
    starts = list(range(0, num_items, max(size, 1)))
    cuts = hidden.cuts(starts, num_items)
    wanted_cuts = wanted.cuts(starts, num_items) if wanted is not None else [0] * (len(starts) + 1)
    for number, first in enumerate(starts):
        stop = min(first + size, num_items)
        score(first, stop, scores[:, : stop - first])
        scores[:, stop - first :] = -torch.inf
        cut = slice(number, number + 2)
        yield _Block(first, scores, (cuts[cut][0], cuts[cut][1]), (wanted_cuts[cut][0], wanted_cuts[cut][1]))


@dataclass
class _Kept:
    """The best of each user so far, sorted, and candidates that wait to be sorted in."""

    num_users: int
    k: int
    device: str
    rows: Tensor = field(init=False)
    scores: Tensor = field(init=False)
    _waiting: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    _num_waiting: int = 0

    def __post_init__(self) -> None:
        shape = (self.num_users, self.k)
        self.rows = torch.full(shape, -1, dtype=torch.int64, device=self.device)
        self.scores = torch.full(shape, -torch.inf, device=self.device)

    def offer(self, first: int, scores: Tensor) -> None:
        """Take what beats the k-th best; items come in ascending order, so an equal score loses to an earlier one."""
        bar = self.scores[:, -1]
        groups = scores.view(len(scores), GROUP, scores.shape[1] // GROUP)
        user, column = (groups.amax(1) > bar[:, None]).nonzero(as_tuple=True)
        if len(user) * GROUP > scores.numel() // 2:  # at the beginning nearly all pass
            user, column = self._of_many(scores, bar)
            values = scores[user, column]
        else:
            within = groups[user, :, column]
            hit, place = (within > bar[user, None]).nonzero(as_tuple=True)
            values = within[hit, place]
            user, column = user[hit], place * groups.shape[2] + column[hit]
        if len(user):
            self._waiting.append((user, column + first, values))
            self._num_waiting += len(user)
        if self._num_waiting > _PENDING * self.num_users * self.k or bool(torch.isinf(bar).any()):
            self._sort_in()

    def sorted(self) -> tuple[Tensor, Tensor]:
        """Rows and scores (users, k)."""
        self._sort_in()
        return self.rows, self.scores

    def _of_many(self, scores: Tensor, bar: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates of a block in which most groups have one: none worse than the block's own k-th."""
        worst = scores.topk(min(self.k, scores.shape[1]), dim=1).values[:, -1]
        user, column = ((scores > bar[:, None]) & (scores >= worst[:, None])).nonzero(as_tuple=True)
        return user, column

    def _sort_in(self) -> None:
        if not self._waiting:
            return
        user, row, score = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._num_waiting = [], 0
        order = (user * (int(row.max()) + 1) + row).argsort()
        user, row, score = user[order], row[order], score[order]
        sizes = torch.bincount(user, minlength=self.num_users)
        place = torch.arange(len(user), device=user.device) - (sizes.cumsum(0) - sizes)[user]
        shape = (self.num_users, int(sizes.max()))
        rows = torch.full(shape, -1, dtype=torch.int64, device=self.device)
        scores = torch.full(shape, -torch.inf, device=self.device)
        rows[user, place], scores[user, place] = row, score
        # Stable, with earlier rows on the left: kept ones are of earlier blocks than those that waited.
        joined, order = torch.cat([self.scores, scores], 1).sort(dim=1, descending=True, stable=True)
        self.scores = joined[:, : self.k].contiguous()
        self.rows = torch.cat([self.rows, rows], 1).gather(1, order[:, : self.k])
