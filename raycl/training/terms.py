"""From a term of the config to its loss, on what a step has gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raycl.config_loss import (
    Bpr,
    CorrectedSoftmax,
    CosineMargin,
    FeatureMasking,
    MultiPositive,
    Rating,
    Reconstruction,
    Softmax,
    Term,
    Triplet,
    ViewContrast,
)
from raycl.model.losses import (
    bpr,
    corrected_softmax,
    cosine_margin,
    multi_positive,
    rating,
    reconstruction,
    softmax,
    triplet,
    view_contrast,
)
from raycl.training import exchange


@dataclass(frozen=True)
class Candidates:
    """Every item that a step compares users with, the same in every process; the global batch comes first."""

    vectors: Tensor
    """(columns, dim)"""
    items: Tensor
    """(columns,), rows of the vocabulary"""
    log_q: Tensor | None
    """(columns + private columns,)"""
    negative: Tensor
    """(rows, columns + private columns): which are negatives of each of this process's rows."""
    private: Tensor | None = None
    """Vectors (rows, private columns, dim) that only their own row is compared with, after those of all."""
    private_items: Tensor | None = None
    """(rows, private columns), rows of the vocabulary or -1"""


@dataclass(frozen=True)
class Reading:
    """An item's features, and what a decoder reads from its vector; as ``reconstruction.loss`` takes them."""

    numbers: Tensor
    read_numbers: Tensor
    tokens: Sequence[Tensor]
    read_tokens: Sequence[Tensor]


@dataclass(frozen=True)
class Material:
    """What one process has in a step, for all terms; ``own`` is the place of its rows in the global batch."""

    users: Tensor
    items: Tensor
    own: Tensor
    weights: Tensor
    item_ids: Tensor
    history: Tensor
    temperature: Tensor | float
    candidates: Candidates | None
    user_views: tuple[Tensor, ...]
    item_views: tuple[Tensor, ...]
    reading: Reading | None


def value(term: Term, given: Material) -> Tensor:
    """The loss of ``term`` on this process's rows, such that its mean over processes is that of one with all rows."""
    ones = torch.ones_like(given.weights)
    match term:
        case Rating():
            targets = rating.cosine_of(given.weights, term.low, term.high)
            return rating.loss(given.users, given.items, targets, ones)
        case ViewContrast():
            return _contrast(given.user_views, given.own, _fingerprints(given.history), ones, term.temperature)
        case FeatureMasking():
            return _contrast(given.item_views, given.own, given.item_ids, ones, term.temperature)
        case Reconstruction():
            read = given.reading
            assert read is not None
            return reconstruction.loss(read.numbers, read.read_numbers, read.tokens, read.read_tokens, ones)
        case _:
            assert given.candidates is not None
            return _against(given.candidates, term, given)


def _against(
    found: Candidates,
    term: Softmax | CorrectedSoftmax | MultiPositive | Bpr | Triplet | CosineMargin,
    given: Material,
) -> Tensor:
    users, items, own, negative = given.users, found.vectors, given.own, found.negative
    log_q, weights, temperature, private = found.log_q, given.weights, given.temperature, found.private
    match term:
        case Softmax():
            return softmax.loss(users, items, own, negative, log_q, weights, temperature, private)
        case CorrectedSoftmax():
            assert log_q is not None
            return corrected_softmax.loss(users, items, own, negative, log_q, weights, temperature, private)
        case MultiPositive():
            liked = in_history(given.history, found.items).scatter(1, own[:, None], True)
            met = liked
            if found.private_items is not None:  # an item that the user liked and turned down is neither
                both = (found.private_items[:, :, None] == given.history[:, None, :]).any(2)
                liked, met = torch.cat([liked, torch.zeros_like(both)], 1), torch.cat([liked, both], 1)
            return multi_positive.loss(users, items, liked, negative & ~met, log_q, weights, temperature, private)
        case Bpr():
            return bpr.loss(users, items, own, negative, log_q, weights, temperature, private)
        case Triplet():
            return triplet.loss(users, items, own, negative, log_q, weights, term.margin, private)
        case CosineMargin():
            margin, share = term.margin, term.negative_weight
            return cosine_margin.loss(users, items, own, negative, log_q, weights, margin, share, private)


def in_history(history: Tensor, items: Tensor) -> Tensor:
    """(rows, columns): whether a row's history (rows, max_history) holds a column's item."""
    ordered = items.sort().values
    # An item is known by its first place in that order; what is no candidate is put in one more, last column.
    first = torch.searchsorted(ordered, history.contiguous())
    there = ordered[first.clamp(max=len(items) - 1)] == history
    marked = torch.zeros(len(history), len(items) + 1, dtype=torch.bool, device=items.device)
    marked.scatter_(1, torch.where(there, first, len(items)), True)
    return marked[:, torch.searchsorted(ordered, items)]


def _contrast(views: tuple[Tensor, ...], own: Tensor, things: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Two views of each row's thing; rows with the same thing are no negatives of each other."""
    first, second = views
    differs = things[:, None] != exchange.gather(things)[None, :]
    all_first, all_second = exchange.gather(first), exchange.gather(second)
    return view_contrast.loss(first, second, all_first, all_second, own, differs, weights, temperature)


def _fingerprints(history: Tensor) -> Tensor:
    """A number for each history (rows,): the same for the same items in the same order."""
    found = torch.zeros_like(history[:, 0])
    for place in history.T:
        found = (found + place + 2) * 0x5851F42D4C957F2D  # wraps round, as a hash should
        found = found ^ (found >> 29)
    return found
