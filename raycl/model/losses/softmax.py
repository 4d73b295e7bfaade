"""Softmax over candidates (InfoNCE, sampled softmax), corrected for how often each item is drawn as a negative."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from raycl.model.losses import negatives

_CELLS = {"cpu": 2**19, "cuda": 2**26}
"""Logits of a block of rows: what the cache of a core holds, and what keeps a GPU busy."""

_FEW = 64
"""Left-out cells are written one by one, in a quarter of the time, where they are fewer than one in so many."""


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
    go on with its columns. It can be differentiated once.
    """
    with torch.autocast(users.device.type, enabled=False):
        value: Tensor = _Fused.apply(  # type: ignore[no-untyped-call]
            users / temperature, items, private, own, negative, log_q, weights
        )
    return value


class _Fused(torch.autograd.Function):
    """The loss and its gradients by blocks of rows, whose logits are used up while they are in the cache.

    Logits, their softmax and its gradient for all rows at once are five readings of (rows, columns) from memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        private: Tensor | None,
        own: Tensor,
        negative: Tensor,
        log_q: Tensor | None,
        weights: Tensor,
    ) -> Tensor:
        learns = any(ctx.needs_input_grad[:3])
        of_users, of_items_t = torch.empty_like(users), items.new_zeros(items.T.shape)  # a faster product so
        of_private = None if private is None else torch.empty_like(private)
        shares = weights / len(users)
        total = shares.new_zeros(())
        size = max(_CELLS.get(users.device.type, _CELLS["cpu"]) // negative.shape[1], 1)
        for start in range(0, len(users), size):
            rows = slice(start, start + size)
            mine, place, apart = users[rows], own[rows, None], None if private is None else private[rows]
            left_out = (~negative[rows]).scatter_(1, place, False)
            logits = _without(negatives.scores(mine, items, apart, log_q), left_out)
            likely = logits.softmax(1)
            # The largest is 1 / sum(exp(logits - largest logit)): two maxima cost less than a logsumexp beside it.
            log_sum = logits.amax(1) - likely.amax(1).log()
            total += ((log_sum - logits.gather(1, place)[:, 0]) * shares[rows]).sum()
            if not learns:
                continue
            slopes = likely.mul_(shares[rows, None]).scatter_add_(1, place, -shares[rows, None].to(likely.dtype))
            shared = slopes[:, : len(items)]
            torch.mm(shared, items, out=of_users[rows])
            of_items_t.addmm_(mine.T, shared)
            if apart is not None and of_private is not None:
                beside = slopes[:, len(items) :, None]
                of_users[rows] += (beside * apart).sum(1)
                torch.mul(beside, mine[:, None, :], out=of_private[rows])
        ctx.save_for_backward(of_users, of_items_t.T.contiguous(), *([] if of_private is None else [of_private]))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        of_users, of_items, *of_private = (saved * slope for saved in ctx.saved_tensors)
        return of_users, of_items, *(of_private or [None]), None, None, None, None


def _without(logits: Tensor, left_out: Tensor) -> Tensor:
    """``logits`` with minus infinity where they are ``left_out``, which are few where all items are negatives."""
    if logits.device.type == "cpu":
        places = np.flatnonzero(left_out.numpy())
        if _FEW * len(places) < left_out.numel():
            logits.view(-1)[torch.from_numpy(places)] = float("-inf")
            return logits
    return logits.masked_fill_(left_out, float("-inf"))
