"""Recall and NDCG over the full catalogue while training: what ``raycl evaluate`` finds of the same users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raycl.data.features import Encoders
from raycl.data.held_out import HeldOut
from raycl.data.packed import Ints
from raycl.errors import RayclError
from raycl.model.inputs import FeatureRows, from_table
from raycl.model.towers import TwoTower
from raycl.training import exchange
from raycl.training.job import Inputs

_USERS, _ITEMS, _TARGETS = 512, 8_192, 1_024
"""Rows of a block; the same for any number of processes, so that all of them add up in one order."""


@dataclass(frozen=True)
class _Run:
    """A block of users. Items are told by their place among those that may be retrieved."""

    users: slice
    met_user: Ints
    met_place: Ints
    """Ascending"""
    targets: slice
    """Their targets among all."""
    owner: Ints
    place: Ints


class Validation:
    """The questions, and their answers by towers as they are now; every process asks the same and gets the same.

    Each process embeds its blocks of users and of the catalogue, and ranks all users against its part of the catalogue,
    whose vectors (items / processes, dim) it holds meanwhile. Scores are never held beyond a block.
    """

    def __init__(
        self, held: HeldOut, num_items: int, active: Ints | None, k: int, encoders: Encoders | None = None
    ) -> None:
        """``active``: rows of the items that may be retrieved, all where it is None; lists are of length ``k``.

        ``encoders`` are those of the context that ``held`` has.
        """
        self._held, self._k = held, k
        self._context: FeatureRows | None = None
        if encoders is not None and encoders.features:
            said = encoders.encode(pa.table(dict(held.state.context)))
            self._context = from_table(said, encoders, len(held))
        self._items = np.arange(num_items) if active is None else active
        place = np.full(num_items, -1)
        place[self._items] = np.arange(len(self._items))
        wanted = held.wanted.take(place[held.wanted.item] >= 0)
        met = held.met.take(place[held.met.item] >= 0)
        self._owner, self._place = wanted.user, place[wanted.item]
        self._runs = []
        for start in range(0, len(held), _USERS):
            users = slice(start, min(start + _USERS, len(held)))
            targets = slice(*map(int, np.searchsorted(wanted.user, [users.start, users.stop])))
            mine = met.of(users)
            order = np.argsort(place[mine.item], kind="stable")
            self._runs.append(
                _Run(
                    users,
                    mine.user[order],
                    place[mine.item][order],
                    targets,
                    self._owner[targets] - start,
                    self._place[targets],
                )
            )

    @property
    def num_users(self) -> int:
        """How many are measured."""
        return len(np.unique(self._owner))

    def measure(self, towers: TwoTower, inputs: Inputs) -> tuple[float, float]:
        """Mean recall and NDCG at ``k`` over users, as ``evaluation.metrics`` defines them.

        ``inputs`` are on the towers' device. RayclError where a vector is not finite.
        """
        training = towers.training
        towers.eval()
        with torch.no_grad():
            ahead = self._ahead(towers, inputs)
        towers.train(training)
        return _metrics(ahead, self._owner, self._k)

    def _ahead(self, towers: TwoTower, inputs: Inputs) -> Ints:
        """Of each target (targets,), how many items are before it.

        Those that the user has not met and that score higher, or as high from an earlier row.
        """
        users = self._user_vectors(towers, inputs)
        blocks = list(self._item_vectors(towers, inputs))
        device = users.device
        own = torch.zeros(len(self._owner) + 1, device=device)
        own[-1] = sum(float(not vectors.isfinite().all()) for _, vectors in blocks)
        for first, vectors in blocks:
            for run in self._runs:
                inside = np.flatnonzero((run.place >= first) & (run.place < first + len(vectors)))
                if len(inside):
                    scores = _scores(users, vectors, first, run)
                    cells = torch.from_numpy(run.owner[inside]), torch.from_numpy(run.place[inside] - first)
                    own[torch.from_numpy(inside + run.targets.start)] = scores[cells]
        exchange.total(own)
        if own[-1] or not own.isfinite().all():
            raise RayclError(
                "the towers give vectors that are not finite: lower train.learning_rate or raise loss.temperature;"
                " the last checkpoint is intact"
            )
        ahead = torch.zeros(len(self._owner), dtype=torch.int64, device=device)
        for first, vectors in blocks:
            for run in self._runs:
                ahead[run.targets] += _before(_scores(users, vectors, first, run), first, run, own[run.targets])
        return np.asarray(exchange.total(ahead).cpu().numpy())

    def _user_vectors(self, towers: TwoTower, inputs: Inputs) -> Tensor:
        """(users, dim), the same in every process."""
        found = torch.zeros(len(self._held), towers.spec.model.dim, device=inputs.users.numbers.device)
        for rows, is_mine in _dealt(len(self._held), _USERS):
            vectors = self._states(towers, rows, inputs)
            if is_mine:
                found[rows] = vectors
        return exchange.total(found)

    def _states(self, towers: TwoTower, rows: slice, inputs: Inputs) -> Tensor:
        """Vectors (rows, dim) of these users in the states before what they are asked for.

        By both towers, and of no items: where they share what they read of an item, only those of the histories are
        read, and not the whole catalogue as for a user tower that answers alone.
        """
        device, state = inputs.users.numbers.device, self._held.state
        history = torch.from_numpy(state.history[rows].astype(np.int64)).to(device)
        described = inputs.users.take(torch.from_numpy(state.user_row[rows].astype(np.int64)).to(device))
        ages = None if state.age_s is None else torch.from_numpy(state.age_s[rows]).to(device)
        context = None if self._context is None else self._context.part(rows).to(device)
        none = torch.zeros(0, dtype=torch.int64, device=device)
        nothing = inputs.items.take(none)
        asked = towers(history, described, none, nothing, age_s=ages, context=context, catalogue=inputs.items)
        vectors: Tensor = asked[0]
        return vectors

    def _item_vectors(self, towers: TwoTower, inputs: Inputs) -> Iterator[tuple[int, Tensor]]:
        """This process's blocks of the catalogue: the place of the first item, and vectors (rows, dim)."""
        for places, is_mine in _dealt(len(self._items), _ITEMS):
            rows = torch.from_numpy(self._items[places]).to(inputs.items.numbers.device)
            vectors = towers.item(rows, inputs.items.take(rows))
            if is_mine:
                yield places.start, vectors


def _dealt(total: int, size: int) -> Iterator[tuple[slice, bool]]:
    """Blocks of ``size`` dealt to the processes in turn, and whether each is this process's own.

    Every process gets as many, some of them one of another, since towers may exchange something in each call.
    """
    count, world = -(-total // size), exchange.world_size()
    for turn in range(0, count, world):
        number = turn + exchange.rank()
        start = min(number, count - 1) * size
        yield slice(start, min(start + size, total)), number < count


def _scores(users: Tensor, vectors: Tensor, first: int, run: _Run) -> Tensor:
    """(users of the run, items of the block), -inf where the user has met the item."""
    scores = users[run.users] @ vectors.T
    cells = slice(*map(int, np.searchsorted(run.met_place, [first, first + len(vectors)])))
    scores[torch.from_numpy(run.met_user[cells]), torch.from_numpy(run.met_place[cells] - first)] = -torch.inf
    return scores


def _before(scores: Tensor, first: int, run: _Run, own: Tensor) -> Tensor:
    """Of each target of the run, with the score ``own`` (targets,), how many items of the block are before it."""
    last = first + scores.shape[1]
    owner, place = torch.from_numpy(run.owner), torch.from_numpy(run.place).to(scores.device)
    # An item of an earlier block is before a target of the same score, and that of a later block is not.
    bar = torch.where(place >= last, torch.nextafter(own, torch.full_like(own, -torch.inf)), own)
    ahead = torch.zeros_like(place)
    for start in range(0, len(owner), _TARGETS):
        part = slice(start, start + _TARGETS)
        ahead[part] = scores[owner[part]].gt_(bar[part, None]).sum(1).long()  # exact: a block is short
    inside = np.flatnonzero((run.place >= first) & (run.place < last))
    columns = torch.arange(first, last, device=scores.device)
    for start in range(0, len(inside), _TARGETS):
        some = torch.from_numpy(inside[start : start + _TARGETS])
        same = scores[owner[some]] == own[some, None]
        ahead[some] += (same & (columns < place[some, None])).float().sum(1).long()
    return ahead


def _metrics(ahead: Ints, owner: Ints, k: int) -> tuple[float, float]:
    """Mean recall and NDCG over the users who own these targets."""
    _, user, num_targets = np.unique(owner, return_inverse=True, return_counts=True)
    inside = ahead < k
    gains = np.where(inside, 1.0 / np.log2(ahead + 2.0), 0.0)
    most = np.minimum(num_targets, k)
    ideal = np.cumsum(1.0 / np.log2(np.arange(most.max()) + 2.0))[most - 1]
    recall = np.bincount(user, weights=inside) / num_targets
    ndcg = np.bincount(user, weights=gains) / ideal
    return float(recall.mean()), float(ndcg.mean())
