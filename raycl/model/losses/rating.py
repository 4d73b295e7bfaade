"""Regression of ratings on cosine: no negatives, for logs that say how much an item was liked."""

from __future__ import annotations

from torch import Tensor


def loss(users: Tensor, items: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over rows of the squared difference of ``targets`` (rows,) and the cosine of user and own item.

    ``items`` (rows, dim) are the rows' own items in order.
    """
    return (((users * items).sum(1) - targets) ** 2 * weights).mean()


def cosine_of(ratings: Tensor, low: float, high: float) -> Tensor:
    """The cosine that stands for each rating: -1 at ``low`` and below, 1 at ``high`` and above, even between."""
    return ((ratings - low) / (high - low) * 2 - 1).clamp(-1.0, 1.0)
