"""What a step sends through the towers: the batch's own rows, and those that the loss draws besides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raycl.data.reader import Batch
from raycl.model import masking
from raycl.model.inputs import FeatureRows
from raycl.training import draws, exchange, private, requests
from raycl.training.job import Inputs, Job
from raycl.training.prefetch import sent


@dataclass(frozen=True)
class Passes:
    """Rows for the user tower and for the item tower, in this order of runs; none but the batch's are always there.

    Users: the batch's, then two views of their histories, without times and requests. Items: the batch's, this
    process's share of those drawn evenly, then those private to each row, then the batch's twice more with features
    hidden.
    """

    batch_rows: int
    weights: Tensor
    """(batch_rows,)"""
    history: Tensor
    """(user rows, max_history), rows of the vocabulary or -1"""
    user_rows: Tensor
    """(user rows,), rows of the user table; -1 takes the last"""
    items: Tensor
    """(item rows,), rows of the vocabulary"""
    hidden: Tensor
    """(item rows,): whose own embedding is hidden"""
    hidden_features: Tensor | None
    """(item rows, features of an item)"""
    uniform: Tensor
    """Items drawn evenly for all processes together (loss.negatives.uniform,)"""
    age_s: Tensor | None = None
    """(user rows, max_history) seconds from each event to the target, NaN where they are hidden; None where no event
    has an age"""
    context: FeatureRows | None = None
    """(user rows,) what the request carries; None where the towers read none of it"""
    private: Tensor | None = None
    """(batch_rows, some) items that only their own row is compared with, -1 for none; None where no row has any"""

    whole_history: Tensor | None = None
    """(batch_rows, max_history) of the batch, where ``history`` hides some of it; None where it is all there"""

    @property
    def batch_items(self) -> Tensor:
        """The items of the batch's own pairs (batch_rows,)."""
        return self.items[: self.batch_rows]

    @property
    def batch_history(self) -> Tensor:
        """Their histories, unchanged (batch_rows, max_history)."""
        return self.history[: self.batch_rows] if self.whole_history is None else self.whole_history

    @property
    def item_runs(self) -> list[int]:
        """How many item rows are the batch's, drawn evenly, private to rows, and of each view with hidden features."""
        drawn = -(-len(self.uniform) // exchange.world_size())
        private = 0 if self.private is None else self.private.numel()
        return [self.batch_rows, drawn, private] + ([self.batch_rows] * 2 if self.hidden_features is not None else [])

    def chunks(self, rows: int | None) -> list[tuple[slice, slice]]:
        """User rows and item rows of each pass, at most ``rows`` of each; one pass of all where it is None."""
        users, items = len(self.user_rows), len(self.items)
        num = 1 if rows is None else -(-max(users, items) // rows)
        return [
            (slice(users * n // num, users * (n + 1) // num), slice(items * n // num, items * (n + 1) // num))
            for n in range(num)
        ]

    def inputs_of(
        self, inputs: Inputs, users: slice, items: slice
    ) -> tuple[Tensor, FeatureRows, Tensor, FeatureRows, Tensor, Tensor | None, FeatureRows | None]:
        """The arguments of ``TwoTower`` for these rows."""
        features = inputs.items.take(self.items[items])
        if self.hidden_features is not None:
            features = masking.hide(features, self.hidden_features[items])
        described = inputs.users.take(self.user_rows[users])
        ages = None if self.age_s is None else self.age_s[users]
        context = None if self.context is None else self.context.part(users)
        return self.history[users], described, self.items[items], features, self.hidden[items], ages, context


def of(job: Job, correlated: masking.Floats | None, batch: Batch, number: int, device: torch.device) -> Passes:
    """The passes of this process's part of a global batch; ``correlated`` is of ``masking.correlation``.

    Together the processes send what one process with the whole batch would send.
    """
    read = _remembered(job, batch.history, number)
    histories = [read, *_views(job, batch.history, number, device)]
    uniform = draws.uniform(job.seed, number, job.loss.negatives.uniform, job.num_active)
    uniform = uniform if job.inputs.active is None else job.inputs.active[uniform]
    own, apart = batch.item.astype(np.int64), private.items(job, batch, number)
    # Where there is none the row's own item goes through the tower in its place, so that sizes depend on no data.
    told = own[:0] if apart is None else np.where(apart >= 0, apart, own[:, None]).reshape(-1)
    items = np.concatenate([own, _share(uniform), told])
    hidden = draws.hidden(job.seed, number, items, job.spec.model.id_dropout)
    hidden_features = None
    if correlated is not None:
        plain = np.zeros((len(items), len(correlated)), dtype=np.bool_)
        halves = masking.halves(correlated, draws.feature_generator(job.seed, number))
        views = [np.tile(half, (len(batch), 1)) for half in halves]
        flags = np.concatenate([plain, *views])
        items = np.concatenate([items, batch.item, batch.item])
        hidden = np.concatenate([hidden, hidden[: len(batch)], hidden[: len(batch)]])
        num_features = masking.num_features(job.inputs.items)
        hidden = hidden | flags[:, num_features:].any(1)
        hidden_features = sent(flags[:, :num_features], device)
    return Passes(
        len(batch),
        sent(batch.weight, device),
        sent(np.concatenate(histories).astype(np.int64), device),
        sent(np.tile(batch.user_row.astype(np.int64), len(histories)), device),
        sent(items, device),
        sent(hidden, device),
        hidden_features,
        sent(uniform, device),
        requests.ages(job, batch, number, len(histories), device),
        requests.context(job, batch, number, len(histories), device),
        None if apart is None else sent(apart, device),
        None if read is batch.history else sent(batch.history.astype(np.int64), device),
    )


def _remembered(job: Job, history: npt.NDArray[np.int32], number: int) -> npt.NDArray[np.int32]:
    """This process's histories with -1 in the place of what is hidden; themselves where nothing is."""
    share = job.spec.model.history_dropout
    if share == 0.0:
        return history
    num_rows = len(history) * exchange.world_size()
    forgotten = draws.forgotten(job.seed, number, num_rows, history.shape[1], share)
    return np.where(forgotten[exchange.own_rows(len(history))], np.int32(-1), history)


def _views(job: Job, history: npt.NDArray[np.int32], number: int, device: torch.device) -> list[npt.NDArray[np.int32]]:
    """Two views of this process's histories, drawn over those of all processes."""
    terms = [term for term in job.loss.terms if term.kind == "views"]
    if not terms:
        return []
    whole = exchange.gather(sent(history, device)).cpu().numpy()
    mine = exchange.own_rows(len(history))
    views = draws.two_views(job.seed, number, whole, terms[0], job.inputs.neighbours)
    return [view[mine] for view in views]


def _share(uniform: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """This process's run of the drawn items; runs are equally long, the last ones filled up from the start."""
    size = -(-len(uniform) // exchange.world_size())
    return np.resize(uniform, size * exchange.world_size())[exchange.own_rows(size)]
