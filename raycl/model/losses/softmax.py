"""Softmax over candidates (InfoNCE, sampled softmax), corrected for how often each item is drawn as a negative."""

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
    """Mean over rows of ``-log softmax`` at each user's own item, among it and its negatives.

    ``log_q`` is subtracted after the temperature, from own items and negatives alike, for training only (Yi et al.,
    RecSys 2019, section 3; Bengio and Senécal, 2008). Where candidates come from several samplers it is that of the
    mixture (Yang et al., WWW 2020, section 4.2). ``private`` as in ``negatives.scores``; ``negative`` and ``log_q``
    go on with its columns.
    """
    logits = negatives.scores(users / temperature, items, private, log_q)
    left_out = (~negative).scatter(1, own[:, None], False)
    return (F.cross_entropy(logits.masked_fill_(left_out, float("-inf")), own, reduction="none") * weights).mean()
