"""Tables whose rows are spread over the processes: row ``r`` is with process ``r % world_size``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from raycl.model.row_table import tables_of
from raycl.training import exchange

_ROWS = 262_144
"""Rows that cross at once where a whole table is put together."""


class _Read(torch.autograd.Function):
    """Rows from the processes that hold them; their gradients go back the same way."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:
        world = exchange.world_size()
        ctx.order = torch.argsort(rows % world, stable=True)
        counts = torch.bincount(rows % world, minlength=world)
        ctx.asked = counts.tolist()
        ctx.told = exchange.swapped(counts, [1] * world, [1] * world).tolist()
        ctx.held = exchange.swapped(rows[ctx.order], ctx.asked, ctx.told) // world
        ctx.shape = weight.shape
        answer = exchange.swapped(weight.index_select(0, ctx.held), ctx.told, ctx.asked)
        return torch.empty_like(answer).index_copy_(0, ctx.order, answer)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        own = exchange.swapped(gradients[0].index_select(0, ctx.order), ctx.asked, ctx.told)
        return torch.sparse_coo_tensor(ctx.held[None], own, ctx.shape, check_invariants=False), None


class Spread:
    """``row_table.Shards`` over the processes of ``torch.distributed``."""

    def read(self, weight: Tensor, rows: Tensor) -> Tensor:
        """The vectors (rows, dim) of distinct ``rows`` (rows,); the gradient of a row is the sum over the processes."""
        found: Tensor = _Read.apply(weight, rows)  # type: ignore[no-untyped-call]
        return found


def spread(module: nn.Module) -> None:
    """Leave in each table of ``module``, which is whole and the same in all processes, this process's rows alone."""
    if exchange.world_size() == 1:
        return
    for table in tables_of(module).values():
        table.weight = nn.Parameter(part(table.weight.detach()))
        table.shards = Spread()


def part(whole: Tensor) -> Tensor:
    """This process's rows of a table (rows, ...)."""
    return whole[exchange.rank() :: exchange.world_size()].clone()


def whole(own: Tensor, num_rows: int) -> Tensor:
    """A table (num_rows, ...) in the host's memory, from every process's rows of it; all processes call it.

    Only process 0 gets it, and the others an empty one, so that no more than one host need have room for it.
    """
    world, first = exchange.world_size(), exchange.rank() == 0
    found = torch.empty(num_rows if first else 0, *own.shape[1:], dtype=own.dtype)
    block = -(-_ROWS // world)
    for start in range(0, -(-num_rows // world), block):
        size = min(block, -(-num_rows // world) - start)
        mine = own[start : start + size]
        filled = torch.cat([mine, mine.new_zeros(size - len(mine), *mine.shape[1:])])
        for process, rows in enumerate(exchange.all_gathered(filled)):
            if first:
                places = found[process + start * world : process + (start + size) * world : world]
                places.copy_(rows[: len(places)])
    return found


def put_together(module: nn.Module) -> None:
    """The inverse of ``spread``, in process 0 and the host's memory; elsewhere tables are left empty.

    All processes call it.
    """
    tables = [table for table in tables_of(module).values() if table.shards is not None]
    for table in tables:
        table.weight = nn.Parameter(whole(table.weight.detach(), table.num_rows))
        table.shards = None
    if tables:
        module.cpu()
