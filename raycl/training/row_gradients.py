"""Gradients of the rows that a step has read of its tables, and their mean over the processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raycl.model import row_table
from raycl.model.row_table import RowTable
from raycl.training import exchange


def parts(parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """The rows (touched,) that ``parameter`` has a gradient for, and their gradients (touched, dim)."""
    gradient = parameter.grad
    if gradient is None:
        return parameter.new_empty(0, dtype=torch.int64), parameter.new_empty(0, parameter.shape[1])
    return gradient._indices()[0], gradient._values()


def average(tables: Sequence[RowTable], means: Means) -> None:
    """Put into each table the mean over the processes of its gradient, with each touched row once, in order.

    The tables' rows are of one length. What crosses is the rows that were touched: their numbers and gradients. Of a
    table that is spread over the processes the sum has come to its rows already.
    """
    shared = [table for table in tables if table.shards is None]
    found = [_distinct(*parts(table.weight), len(table.weight)) for table in shared]
    if exchange.world_size() > 1 and found:
        found = means.of(found, [len(table.weight) for table in shared])
    for table, (rows, values) in zip(shared, found, strict=True):
        _put(table, rows, values)
    for table in tables:
        if table.shards is not None:
            rows, values = _distinct(*parts(table.weight), len(table.weight))
            _put(table, rows, values / exchange.world_size())


class Means:
    """Means over the processes of the gradients of rows, in one exchange a step.

    How many rows the others have is not known before, so there is room for some more than the last step had; what has
    no room comes in a second exchange. Every process has one of these from the first step on.
    """

    def __init__(self) -> None:
        self._room = 0

    def of(self, mine: Sequence[tuple[Tensor, Tensor]], num_rows: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """The rows (touched,), in order, and their mean gradients (touched, dim), for each table's in this process.

        ``num_rows`` are those of each table.
        """
        rows, values = (torch.cat(column) for column in zip(*mine, strict=True))
        found = _Rows.of(torch.tensor([len(rows) for rows, _ in mine], device=rows.device), rows, values, self._room)
        sizes = found.sizes.tolist()
        longest = max(map(sum, sizes))
        if longest > self._room:
            more = _in_eights(longest - self._room)
            found = found.and_then(_Rows.of(rows[:0], rows[self._room :], values[self._room :], more))
        self._room = _in_eights(longest + longest // 16)
        by_process = [
            list(zip(*(torch.split(whole[: sum(each)], each) for whole in (its_rows, its_values)), strict=True))
            for each, its_rows, its_values in zip(sizes, found.rows, found.values, strict=True)
        ]
        means = []
        for num, *of_table in zip(num_rows, *by_process, strict=True):
            rows, values = (torch.cat(column) for column in zip(*of_table, strict=True))
            rows, values = _distinct(rows, values, num)
            means.append((rows, values / len(sizes)))
        return means


@dataclass(frozen=True)
class _Rows:
    """What all processes have."""

    sizes: Tensor
    """(world_size, tables)"""
    rows: Tensor
    """(world_size, room)"""
    values: Tensor
    """(world_size, room, dim)"""

    @staticmethod
    def of(sizes: Tensor, rows: Tensor, values: Tensor, room: int) -> _Rows:
        """In one exchange, what has ``room`` of this process's ``rows`` and ``values``."""
        dim, count = values.shape[1], len(sizes)
        sent = sizes.new_empty(8 * (count + room) + room * dim * values.element_size(), dtype=torch.uint8)
        numbers, vectors = sent[: 8 * (count + room)], sent[8 * (count + room) :]
        fits = min(len(rows), room)
        numbers.view(torch.int64)[:count] = sizes
        numbers.view(torch.int64)[count : count + fits] = rows[:fits]
        vectors.view(values.dtype).view(room, dim)[:fits] = values[:fits]
        found = exchange.all_gathered(sent)
        all_numbers, all_vectors = torch.split(found, [len(numbers), len(vectors)], 1)
        all_sizes, all_rows = torch.split(all_numbers.view(torch.int64), [count, room], 1)
        return _Rows(all_sizes, all_rows, all_vectors.view(values.dtype).view(len(found), room, dim))

    def and_then(self, more: _Rows) -> _Rows:
        """With the rows that had no room."""
        return _Rows(self.sizes, torch.cat([self.rows, more.rows], 1), torch.cat([self.values, more.values], 1))


def _in_eights(rows: int) -> int:
    """At least so many, with which every process's bytes begin where a number may."""
    return -(-rows // 8) * 8


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


def _distinct(rows: Tensor, values: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Each row of a table of ``num_rows`` once, in order, with the sum of its gradients."""
    if bool((rows[1:] > rows[:-1]).all()):
        return rows, values
    once, places = row_table.distinct(rows, num_rows)
    return once, values.new_zeros(len(once), values.shape[1]).index_add_(0, places, values)
