"""Contrast of two views of the same thing: a user's history changed twice, or an item with features masked twice."""

from __future__ import annotations

import torch
from torch import Tensor

from raycl.model.losses import softmax


def loss(
    first: Tensor,
    second: Tensor,
    all_first: Tensor,
    all_second: Tensor,
    own: Tensor,
    differs: Tensor,
    weights: Tensor,
    temperature: Tensor | float,
) -> Tensor:
    """Mean over rows, both ways, of ``-log softmax`` of a row's other view among it and both views of other rows.

    ``first`` and ``second`` (rows, dim) are unit vectors of the views, ``all_first`` and ``all_second`` (columns, dim)
    those of all rows, ``own`` (rows,) each row's place among them, and ``differs`` (rows, columns) says which places
    hold another thing than the row. NT-Xent (Chen et al., ICML 2020), as CL4SRec has it for histories (Xie et al., ICDE
    2022, section 3.2.2) and Yao et al. for items (CIKM 2021, section 3.1, which leaves out the row's own kind of view).
    """
    beside = torch.cat([differs, differs], dim=1)
    there = softmax.loss(first, torch.cat([all_second, all_first]), own, beside, None, weights, temperature)
    back = softmax.loss(second, torch.cat([all_first, all_second]), own, beside, None, weights, temperature)
    return (there + back) / 2
