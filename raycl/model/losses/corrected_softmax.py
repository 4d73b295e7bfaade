"""Sampled softmax whose logQ counts negatives alone, since the own item is there for certain."""

from __future__ import annotations

import torch
from torch import Tensor

from raycl.model.losses import negatives


def loss(
    users: Tensor,
    items: Tensor,
    own: Tensor,
    negative: Tensor,
    log_q: Tensor,
    weights: Tensor,
    temperature: Tensor | float,
    private: Tensor | None = None,
) -> Tensor:
    """A value whose gradient estimates that of the full softmax with less bias than logQ on every column.

    The sum over the catalogue without the own item p is estimated from the negatives d, drawn with
    ``q'(d) = q(d) / (1 - q(p))``, as ``S = mean exp(s_d) / q'(d)``. The value is ``-(1 - P) (s_p - log S)`` with
    ``P = exp(s_p) / (exp(s_p) + S)`` held constant: its gradient is ``(1 - P)`` times that of the negatives' weighted
    mean less the own score ("Correcting the LogQ correction", RecSys 2025, arXiv:2507.09331). The value itself is no
    negative log-likelihood; compare it between runs of this loss alone. ``log_q`` must be that of all draws, its sum
    over the catalogue 1. ``private`` as in ``softmax``.
    """
    logits = negatives.scores(users, items, private) / temperature
    score = logits.gather(1, own[:, None])[:, 0]
    count = negative.sum(1)
    absent = torch.log1p(-log_q[own].exp().clamp(max=1 - 1e-6))
    log_sum = negatives.log_sum_exp(logits - log_q, negative) - count.clamp(min=1).to(logits.dtype).log() + absent
    gap = (score - log_sum).masked_fill(count == 0, 0.0)
    return -(torch.sigmoid(-gap.detach()) * gap * weights).mean()
