"""Softmax with several own items a row."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from raycl.model.losses import negatives


def loss(
    users: Tensor,
    items: Tensor,
    positive: Tensor,
    negative: Tensor,
    log_q: Tensor | None,
    weights: Tensor,
    temperature: Tensor | float,
    private: Tensor | None = None,
) -> Tensor:
    """Mean over rows of the mean over a row's positive columns of ``-log softmax`` among that column and the negatives.

    ``positive`` (rows, columns) marks the own items, at least one a row, and none that ``negative`` marks; an own item
    is no competitor of another (Khosla et al., NeurIPS 2020, the outer sum, without positives in the denominator).
    ``log_q`` and ``private`` as in ``softmax``.
    """
    logits = negatives.scores(users, items, private) / temperature
    if log_q is not None:
        logits = logits - log_q
    against = negatives.log_sum_exp(logits, negative)[:, None]
    each = -F.logsigmoid(logits - against)
    mean = (each * positive).sum(1) / positive.sum(1)
    return (mean * weights).mean()
