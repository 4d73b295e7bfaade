"""What several descriptions of one thing come to: gates that say how much each counts, row by row."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gates(nn.Module):
    """A weighted sum of parts whose weights are a softmax over the parts that a row has.

    Each part says itself how much it counts, by one linear map (gated multimodal units, Arevalo et al. 2017, with a
    softmax in place of independent gates, so that what is missing leaves its share to the rest). Untrained gates weigh
    all alike. The weights of a row add up to the number of parts, so that with all of them it is of the scale of a sum.
    """

    def __init__(self, num_parts: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_parts, dim))
        self.bias = nn.Parameter(torch.zeros(num_parts))

    def forward(self, parts: Tensor, present: Tensor) -> Tensor:
        """(rows, dim) of ``parts`` (parts, rows, dim), of which each row has those ``present`` (parts, rows).

        A row that has none is the plain sum of its parts, which then are what stands for the unknown.
        """
        weighed = (self.shares(parts, present)[:, :, None] * parts).sum(0) * len(parts)
        return torch.where(present.any(0)[:, None], weighed, parts.sum(0))

    def shares(self, parts: Tensor, present: Tensor) -> Tensor:
        """How much of each row every part is, (parts, rows): of a row they add up to 1, and 0 is of what is missing."""
        said = torch.einsum("prd,pd->pr", parts, self.weight) + self.bias[:, None]
        # Of a row with nothing all parts share alike, since a softmax of nothing but -inf is not a number.
        return said.masked_fill(~present & present.any(0), -torch.inf).softmax(0)
