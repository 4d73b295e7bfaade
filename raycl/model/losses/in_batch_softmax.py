"""Softmax over the items of the batch (InfoNCE), corrected for how often each item is drawn as a negative."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def loss(
    users: Tensor,
    items: Tensor,
    own: Tensor,
    item_ids: Tensor,
    log_q: Tensor | None,
    weights: Tensor,
    temperature: float,
) -> Tensor:
    """Mean over rows of ``-log softmax`` at each user's own item, weighted by ``weights``.

    ``users`` (rows, dim) and ``items`` (columns, dim) are unit vectors, ``own`` (rows,) the column of each row's item,
    ``item_ids`` (columns,) tells which columns are the same item: other columns of a row's own item are no negatives
    and are left out. ``log_q`` (columns,) is the log-probability that a column's item is drawn into a batch; it is
    subtracted after the temperature, for training only (Yi et al., RecSys 2019, section 3; Bengio and Senécal, 2008).
    ``weights`` (rows,) are divided by ``rows``, not by their own sum, so that parts of a batch add up to the whole.
    """
    logits = users @ items.T / temperature
    if log_q is not None:
        logits = logits - log_q
    columns = torch.arange(items.shape[0], device=items.device)
    accidental = (item_ids[own][:, None] == item_ids[None, :]) & (columns[None, :] != own[:, None])
    logits = logits.masked_fill(accidental, float("-inf"))
    return (F.cross_entropy(logits, own, reduction="none") * weights).mean()
