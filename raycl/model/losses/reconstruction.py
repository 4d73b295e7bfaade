"""Autoencoder: features read back from the vector that a tower made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def loss(
    numbers: Tensor,
    read_numbers: Tensor,
    tokens: Sequence[Tensor],
    read_tokens: Sequence[Tensor],
    weights: Tensor,
) -> Tensor:
    """Mean over rows of the squared errors of ``numbers`` and the negative log-likelihoods of each feature's tokens.

    ``numbers`` and ``read_numbers`` (rows, num_numbers) count by their mean. ``tokens`` are (rows, width) a feature, 0
    where there is none; ``read_tokens`` (rows, num_tokens) are logits, and a row's tokens are likely together when
    each has an equal share of the softmax (multinomial likelihood, Liang et al., WWW 2018, equation 2), as a mean over
    the row's tokens. A feature of which a row has none counts 0.
    """
    total = torch.zeros_like(weights)
    if numbers.shape[1]:
        total = total + (read_numbers - numbers).square().mean(1)
    for values, logits in zip(tokens, read_tokens, strict=True):
        present = values > 0
        likely = logits.log_softmax(1).gather(1, values.long()) * present
        total = total - likely.sum(1) / present.sum(1).clamp(min=1)
    return (total * weights).mean()
