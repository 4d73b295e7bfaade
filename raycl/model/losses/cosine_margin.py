"""Cosine contrastive loss: own items together, negatives at least a margin apart."""

from __future__ import annotations

from torch import Tensor

from raycl.model.losses import negatives


def loss(
    users: Tensor,
    items: Tensor,
    own: Tensor,
    negative: Tensor,
    log_q: Tensor | None,
    weights: Tensor,
    margin: float,
    negative_weight: float,
    private: Tensor | None = None,
) -> Tensor:
    """Mean over rows of ``1 - s_own`` plus ``negative_weight`` times the negatives' mean of ``max(0, s - margin)``.

    Mao et al., "SimpleX", CIKM 2021, equation 2. With ``log_q`` that mean is over items drawn evenly, see
    ``negatives.shares``. ``private`` as in ``softmax``.
    """
    scores = negatives.scores(users, items, private)
    apart = ((scores - margin).relu() * negatives.shares(negative, log_q, scores.dtype)).sum(1)
    together = 1 - scores.gather(1, own[:, None])[:, 0]
    return ((together + negative_weight * apart) * weights).mean()
