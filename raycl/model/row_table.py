"""Embedding tables whose gradients are rows, so that a step costs what it reads and not what there is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MARKED = 64
"""Rows of a table for each that is asked for, up to which marking them all costs less than sorting what is asked."""


class Shards(Protocol):
    """Where rows are that this process does not hold."""

    def read(self, weight: Tensor, rows: Tensor) -> Tensor:
        """The vectors (rows, dim) of distinct ``rows`` (rows,) of a table of which ``weight`` is this process's part.

        All processes call it the same number of times, each for rows of its own.
        """


class RowTable(nn.Module):
    """A learned vector for each row; a backward pass leaves a sparse gradient of the rows that were read.

    Each row is read once, however often it is asked for, so its gradient is one row too.
    """

    def __init__(self, num_rows: int, dim: int, num_zeros: int = 0) -> None:
        """Rows of about unit length; the first ``num_zeros`` are zero."""
        super().__init__()
        self.num_rows = num_rows
        self.shards: Shards | None = None
        """None where ``weight`` holds every row."""
        self.weight = nn.Parameter(torch.empty(num_rows, dim))
        with torch.no_grad():
            nn.init.normal_(self.weight, std=dim**-0.5)
            self.weight[:num_zeros] = 0.0

    def forward(self, rows: Tensor) -> Tensor:
        """The vectors (..., dim) of ``rows`` (...)."""
        table, places = self._read(rows)
        return F.embedding(places, table)

    def sums(self, rows: Tensor, weights: Tensor) -> Tensor:
        """The sums (bags, dim) of the vectors of ``rows`` (bags, width), each times its weight (bags, width)."""
        table, places = self._read(rows)
        return sums(table, places, weights)

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """A table that holds the vectors of ``rows``, and where in it each is."""
        if self.shards is None and not torch.is_grad_enabled():
            return self.weight, rows
        once, places = distinct(rows, self.num_rows)
        if self.shards is not None:
            return self.shards.read(self.weight, once), places
        return F.embedding(once, self.weight, sparse=True), places


def distinct(rows: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Each of ``rows`` (...) of a table once, in order (touched,), and where among them each is (...).

    What ``torch.unique`` finds, in a tenth of the time for the rows of a batch on a CPU.

    On a CPU it may raise IndexError for what is no row of the table; what it lets pass fails where it is read.
    """
    if rows.device.type != "cpu" or num_rows >= _MARKED * rows.numel():
        once, places = torch.unique(rows, return_inverse=True)
        return once, places
    asked, read = rows.numpy(), np.zeros(num_rows, dtype=np.bool_)
    if asked.min() < 0:
        raise IndexError(f"row {asked.min()} of a table of {num_rows}")
    read[asked] = True
    marked, place = np.flatnonzero(read), np.empty(num_rows, dtype=np.int64)
    place[marked] = np.arange(len(marked))
    return torch.from_numpy(marked), torch.from_numpy(place[asked])


def sums(table: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """The sums (bags, dim) of ``table``'s rows at ``places`` (bags, width), each times its weight (bags, width)."""
    return F.embedding_bag(places, table, per_sample_weights=weights.to(table.dtype), mode="sum")


def tables_of(module: nn.Module) -> dict[str, RowTable]:
    """The tables in ``module``, by the name of their weight among its parameters."""
    return {f"{name}.weight": found for name, found in module.named_modules() if isinstance(found, RowTable)}
