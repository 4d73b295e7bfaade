"""Gradients of the rows that a step has read of its tables, and their mean over the processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raycl.model.row_table import RowTable
from raycl.training import exchange


def parts(parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """The rows (touched,) that ``parameter`` has a gradient for, and their gradients (touched, dim)."""
    gradient = parameter.grad
    if gradient is None:
        return parameter.new_empty(0, dtype=torch.int64), parameter.new_empty(0, parameter.shape[1])
    return gradient._indices()[0], gradient._values()


def average(tables: Sequence[RowTable]) -> None:
    """Put into each table the mean over the processes of its gradient, with each touched row once, in order.

    The tables' rows are of one length. What crosses is the rows that were touched: their numbers and gradients. Of a
    table that is spread over the processes the sum has come to its rows already.
    """
    shared = [table for table in tables if table.shards is None]
    found = [_distinct(*parts(table.weight)) for table in shared]
    if exchange.world_size() > 1 and found:
        found = _means(found)
    for table, (rows, values) in zip(shared, found, strict=True):
        _put(table, rows, values)
    for table in tables:
        if table.shards is not None:
            rows, values = _distinct(*parts(table.weight))
            _put(table, rows, values / exchange.world_size())


def clip(dense: Sequence[Tensor], tables: Sequence[RowTable], most: float) -> Tensor:
    """Scale the ``dense`` gradients and those of ``tables`` so that their norm together is at most ``most``.

    Returns the norm before, which is that of the gradients of all processes' rows.
    """
    values = [*dense, *(parts(table.weight)[1] for table in tables if table.shards is None)]
    square = torch.nn.utils.get_total_norm(values).square()
    if spread := [parts(table.weight)[1] for table in tables if table.shards is not None]:
        square = square + exchange.mean(torch.nn.utils.get_total_norm(spread).square()) * exchange.world_size()
    norm = square.sqrt()
    torch._foreach_mul_([*values, *spread], (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _put(table: RowTable, rows: Tensor, values: Tensor) -> None:
    weight = table.weight
    weight.grad = torch.sparse_coo_tensor(rows[None], values, weight.shape, is_coalesced=True, check_invariants=False)


def _means(mine: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    world, device = exchange.world_size(), mine[0][0].device
    sizes = exchange.all_gathered(torch.tensor([len(rows) for rows, _ in mine], device=device)).tolist()
    longest = max(map(sum, sizes))
    all_rows = exchange.all_gathered(_padded(torch.cat([rows for rows, _ in mine]), longest))
    all_values = exchange.all_gathered(_padded(torch.cat([values for _, values in mine]), longest))
    by_process = [
        list(zip(*(torch.split(whole[process, : sum(each)], each) for whole in (all_rows, all_values)), strict=True))
        for process, each in enumerate(sizes)
    ]
    means = []
    for of_table in zip(*by_process, strict=True):
        rows, values = (torch.cat(column) for column in zip(*of_table, strict=True))
        rows, values = _distinct(rows, values)
        means.append((rows, values / world))
    return means


def _distinct(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Each row once, in order, with the sum of its gradients."""
    if bool((rows[1:] > rows[:-1]).all()):
        return rows, values
    distinct, places = torch.unique(rows, return_inverse=True)
    return distinct, values.new_zeros(len(distinct), values.shape[1]).index_add_(0, places, values)


def _padded(values: Tensor, length: int) -> Tensor:
    return torch.cat([values, values.new_zeros(length - len(values), *values.shape[1:])])
