"""Pairwise logistic loss: the own item before each negative."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from raycl.model.losses import negatives


def loss(
    users: Tensor,
    items: Tensor,
    own: Tensor,
    negative: Tensor,
    log_q: Tensor | None,
    weights: Tensor,
    temperature: Tensor | float,
    private: Tensor | None = None,
) -> Tensor:
    """Mean over rows of the mean over negatives of ``-log sigmoid((s_own - s_negative) / temperature)``.

    Rendle et al., "BPR", UAI 2009. With ``log_q`` the mean is that over items drawn evenly, see ``negatives.shares``.
    ``private`` as in ``softmax``.
    """
    scores = negatives.scores(users, items, private)
    ahead = (scores.gather(1, own[:, None]) - scores) / temperature
    each = -F.logsigmoid(ahead) * negatives.shares(negative, log_q, scores.dtype)
    return (each.sum(1) * weights).mean()
