"""Triplet margin loss on cosine: the own item nearer than each negative by a margin."""

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
    private: Tensor | None = None,
) -> Tensor:
    """Mean over rows of the mean over negatives of ``max(0, margin - s_own + s_negative)``.

    Schroff et al., "FaceNet", CVPR 2015, equation 2, on cosine in place of squared distance, which for unit vectors is
    the same up to a factor of 2. With ``log_q`` the mean is that over items drawn evenly, see ``negatives.shares``.
    ``private`` as in ``softmax``.
    """
    scores = negatives.scores(users, items, private)
    each = (margin - scores.gather(1, own[:, None]) + scores).relu() * negatives.shares(negative, log_q, scores.dtype)
    return (each.sum(1) * weights).mean()
