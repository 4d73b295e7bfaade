"""Item vectors of the last batches, kept as further negatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bank(nn.Module):
    """The newest ``size`` item vectors with their items and log-probabilities, first in, first out.

    Cross-batch negative sampling (Wang et al., SIGIR 2021): vectors of few steps ago are nearly those of now, once
    training has settled. How full it is follows from the step alone, so no process ever waits for the device to know.
    """

    vectors: Tensor
    items: Tensor
    log_q: Tensor

    def __init__(self, size: int, dim: int, after_steps: int) -> None:
        super().__init__()
        self.after_steps = after_steps
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("items", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("log_q", torch.zeros(size))

    def held(self, step: int, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors, items and log-probabilities that it holds before ``step``; every step brings ``batch_size``."""
        filled = min(len(self.items), max(step - self.after_steps, 0) * batch_size)
        return self.vectors[:filled], self.items[:filled], self.log_q[:filled]

    @torch.no_grad()
    def push(self, step: int, vectors: Tensor, items: Tensor, log_q: Tensor) -> None:
        """Keep one global batch of vectors (rows, dim), in place of the oldest; nothing before ``after_steps``."""
        if step < self.after_steps:
            return
        size, rows = len(self.items), len(items)
        start = (step - self.after_steps) * rows
        newest = slice(max(rows - size, 0), rows)
        places = torch.arange(start + newest.start, start + rows, device=items.device) % size
        self.vectors[places] = vectors[newest].float()
        self.items[places] = items[newest]
        self.log_q[places] = log_q[newest]
