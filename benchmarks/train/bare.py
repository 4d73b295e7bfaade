"""The same towers and the same loss as a plain PyTorch loop over tensors that lie in memory, without raycl."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """Ready tensors of one step; rows of tables, in which 0 is padding or the unknown."""

    history: Tensor
    """(rows, events)"""
    share: Tensor
    """(rows, events): the weight of each event in the mean"""
    columns: Tensor
    """(columns,): the rows' own items and then those drawn besides; 0 where an item's own embedding is hidden"""
    targets: Tensor
    """(columns,): which items they are"""
    log_q: Tensor
    """(columns,)"""
    weight: Tensor
    """(rows,)"""


class Head(nn.Module):
    """One residual layer, then unit length."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """Unit vectors."""
        return F.normalize(inputs + self.second(F.gelu(self.first(inputs))), dim=-1)


class Towers(nn.Module):
    """A mean of the history's embeddings against the item's own."""

    def __init__(self, rows: int, dim: int, hidden: int, *, sparse: bool) -> None:
        super().__init__()
        self.history = nn.EmbeddingBag(rows, dim, mode="sum", padding_idx=0, sparse=sparse)
        self.ids = nn.Embedding(rows, dim, sparse=sparse)
        self.empty = nn.Parameter(torch.zeros(dim))
        self.user, self.item = Head(dim, hidden), Head(dim, hidden)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors of users and items."""
        pooled = self.history(batch.history, per_sample_weights=batch.share)
        users = torch.where(batch.share.any(1, keepdim=True), pooled, self.empty)
        return self.user(users), self.item(self.ids(batch.columns))


class Loop:
    """Adam on all, or on what is dense beside ``SparseAdam`` on the tables."""

    def __init__(self, towers: Towers, temperature: float, clip: float) -> None:
        self.towers, self.temperature, self.clip = towers, temperature, clip
        sparse = [towers.history.weight, towers.ids.weight] if towers.ids.sparse else []
        dense = [one for one in towers.parameters() if not any(one is table for table in sparse)]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(dense, weight_decay=0.0, fused=True)]
        if sparse:
            self.optimizers.append(torch.optim.SparseAdam(sparse))

    def step(self, batch: Batch, rate: float) -> Tensor:
        """One step; its loss."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = loss_of(self.towers, batch, self.temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = []
        for parameter in self.towers.parameters():
            assert parameter.grad is not None
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
            gradients.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
        norm = torch.nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (self.clip / (norm + 1e-6)).clamp(max=1.0))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        return loss.detach()


def loss_of(towers: Towers, batch: Batch, temperature: float) -> Tensor:
    """Softmax over the columns, corrected by logQ, other columns of a row's own item left out."""
    users, items = towers(batch)
    logits = users @ items.T / temperature - batch.log_q
    same = batch.targets[: len(users), None] == batch.targets[None, :]
    logits = logits.masked_fill(same.fill_diagonal_(False), -math.inf)
    return (F.cross_entropy(logits, torch.arange(len(users)), reduction="none") * batch.weight).mean()
