"""Which columns are a row's negatives, and how much each counts."""

from __future__ import annotations

import torch
from torch import Tensor


def of(own: Tensor, item_ids: Tensor) -> Tensor:
    """(rows, columns): the columns that hold another item than the row's own; an accidental hit is no negative.

    ``item_ids`` (columns,) tells which columns are the same item.
    """
    return item_ids[own][:, None] != item_ids[None, :]


def scores(users: Tensor, items: Tensor, private: Tensor | None, less: Tensor | None = None) -> Tensor:
    """Products of users (rows, dim) with the items (columns, dim) of all, then with those ``private`` to each row.

    (rows, columns + some) with ``private`` (rows, some, dim), which may be None: then there are none. ``less`` (columns
    + some,) is subtracted.
    """
    taken = None if less is None else -less.to(users.dtype)
    shared = users @ items.T if taken is None else torch.addmm(taken[: len(items)], users, items.T)
    if private is None:
        return shared
    apart = (private @ users[:, :, None]).squeeze(2)
    return torch.cat([shared, apart if taken is None else apart + taken[len(items) :]], dim=1)


def hardest(scores: Tensor, negative: Tensor, order: Tensor, num_hard: int, num_random: int) -> Tensor:
    """Of the negatives (rows, columns), each row's ``num_hard`` with the highest score and ``num_random`` others.

    The others are those that come first in ``order`` (rows, columns), whole numbers under the number of columns. Hard
    negatives alone hurt retrieval, a mix helps (Huang et al., KDD 2020, section 6.1). A row with fewer keeps them all.
    """
    columns = scores.shape[1]
    nearest = scores.detach().masked_fill(~negative, float("-inf"))
    hard = _marked(nearest.topk(min(num_hard, columns), dim=1).indices, scores) & negative
    rest = order.masked_fill(~negative | hard, columns)
    drawn = _marked(rest.topk(min(num_random, columns), dim=1, largest=False).indices, scores) & negative & ~hard
    return hard | drawn


def log_sum_exp(logits: Tensor, chosen: Tensor) -> Tensor:
    """Over the ``chosen`` columns, (rows,); where a row has none, the lowest finite number and no gradient."""
    return logits.masked_fill(~chosen, torch.finfo(logits.dtype).min).logsumexp(1)


def shares(negative: Tensor, log_q: Tensor | None, dtype: torch.dtype) -> Tensor:
    """How much each negative counts in a row's mean, (rows, columns): they sum to 1, or to 0 where there are none.

    Equal shares without ``log_q``, else in proportion to 1 / q: the mean is then over items drawn evenly, however the
    columns were drawn (self-normalised importance sampling).
    """
    inverse = torch.zeros(negative.shape[1], dtype=dtype, device=negative.device) if log_q is None else -log_q.to(dtype)
    kept = inverse.expand(negative.shape).masked_fill(~negative, torch.finfo(dtype).min)
    return kept.softmax(1) * negative


def _marked(columns: Tensor, like: Tensor) -> Tensor:
    """(rows, some) places as a mask of the shape of ``like``."""
    return torch.zeros_like(like, dtype=torch.bool).scatter(1, columns, True)
