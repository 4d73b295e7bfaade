"""Features to one vector a row: embeddings of tokens, numbers and given vectors, and what stands for the unknown."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raycl.data.features import PADDING, UNKNOWN
from raycl.model.fusion import Gates
from raycl.model.inputs import FeatureRows
from raycl.model.row_table import RowTable
from raycl.model.spec import FeatureSizes


class FeatureBlock(nn.Module):
    """The sum over features of one vector each, of about unit length when untrained; with ``gated`` by ``Gates``.

    Tokens: the mean of their embeddings. Numbers: a linear map, or a vector of its own for a number that is unknown.
    Given vectors: ``GivenVector``. The vectors of the unknown are learned and start as zero, which says nothing.
    """

    def __init__(self, sizes: FeatureSizes, dim: int, dropout: float = 0.0, *, gated: bool = False) -> None:
        """``dropout``: share of values that count as unknown in training; to gates, all numbers are one part."""
        super().__init__()
        self.bags = nn.ModuleList(Bag(num_tokens, dim, num_zeros=UNKNOWN + 1) for num_tokens in sizes.bag_tokens)
        some = sizes.num_numbers > 0
        self.numbers = nn.Linear(sizes.num_numbers, dim, bias=False) if some else None
        self.unknown_numbers = nn.Parameter(torch.zeros(sizes.num_numbers, dim)) if some else None
        self.vectors = nn.ModuleList(GivenVector(length, dim) for length in sizes.vector_lengths)
        self.dropout = dropout
        num_parts = len(self.bags) + some + len(self.vectors)
        self.gates = Gates(num_parts, dim) if gated and num_parts > 1 else None

    def forward(self, rows: FeatureRows) -> Tensor | None:
        """(rows, dim), or None where there are no features."""
        if self.training and self.dropout:
            rows = _with_unknowns(rows, self.dropout)
        parts = [bag(tokens) for bag, tokens in zip(self.bags, rows.tokens, strict=True)]
        if self.numbers is not None and self.unknown_numbers is not None:
            unknown = rows.numbers.isnan()
            known: Tensor = self.numbers(rows.numbers.masked_fill(unknown, 0.0))
            parts.append(known + unknown.to(rows.numbers.dtype) @ self.unknown_numbers)
        parts += [one(values) for one, values in zip(self.vectors, rows.vectors, strict=True)]
        if not parts:
            return None
        if self.gates is None:
            return torch.stack(parts).sum(0)
        fused: Tensor = self.gates(torch.stack(parts), _present(rows))
        return fused


class Bag(RowTable):
    """The mean of tokens' embeddings."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(rows, dim) of ``tokens`` (rows, width), padding left out."""
        given = (tokens != PADDING).float()
        return self.sums(tokens, given / given.sum(1, keepdim=True).clamp(min=1.0))


class GivenVector(nn.Module):
    """Vectors of another model, mapped linearly and brought to one scale by layer normalisation (Ba et al. 2016)."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(length, dim)
        self.norm = nn.LayerNorm(dim)
        self.unknown = nn.Parameter(torch.zeros(dim))
        nn.init.constant_(self.norm.weight, dim**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        """(rows, length) to (rows, dim); a row of NaN takes a learned vector of its own."""
        missing = values[:, :1].isnan()
        mapped: Tensor = self.norm(self.linear(values.masked_fill(missing, 0.0)))
        return torch.where(missing, self.unknown, mapped)


def _present(rows: FeatureRows) -> Tensor:
    """Which parts each row has, (parts, rows), in the order of the block: tokens, all numbers together, vectors."""
    found = [one[:, 0] != UNKNOWN for one in rows.tokens]
    if rows.numbers.shape[1]:
        found.append(~rows.numbers.isnan().all(1))
    return torch.stack([*found, *(~one[:, 0].isnan() for one in rows.vectors)])


def _with_unknowns(rows: FeatureRows, share: float) -> FeatureRows:
    """The rows with each value unknown at a chance of ``share``."""
    tokens = []
    for one in rows.tokens:
        unknown = torch.full_like(one[:1], PADDING)
        unknown[:, 0] = UNKNOWN
        tokens.append(torch.where(_drawn(one[:, :1], share), unknown, one))
    numbers = rows.numbers.masked_fill(_drawn(rows.numbers, share), torch.nan)
    vectors = [one.masked_fill(_drawn(one[:, :1], share), torch.nan) for one in rows.vectors]
    return FeatureRows(tuple(tokens), numbers, tuple(vectors))


def _drawn(like: Tensor, share: float) -> Tensor:
    return torch.rand(like.shape, device=like.device) < share
