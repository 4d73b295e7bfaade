"""What the processes of one training run exchange, through ``torch.distributed`` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """All processes' rows, in rank order; the gradient of a row is the sum over the processes that used it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        ctx.num_rows = rows.shape[0]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.num_rows
        return total[start : start + ctx.num_rows]


def gather(rows: Tensor) -> Tensor:
    """Rows of every process end to end, (world_size * rows, ...); the same number of rows in each."""
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def mean(value: Tensor) -> Tensor:
    """The mean of a scalar over the processes."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def average(tensors: Sequence[Tensor | None]) -> None:
    """Put the mean over the processes into each tensor, in one exchange; the same ones are None in every process."""
    given = [tensor for tensor in tensors if tensor is not None]
    if world_size() == 1 or not given:
        return
    total = torch.cat([tensor.reshape(-1) for tensor in given])
    dist.all_reduce(total)
    for tensor, part in zip(given, torch.split(total, [tensor.numel() for tensor in given]), strict=True):
        tensor.copy_(part.view_as(tensor) / world_size())


def own_rows(num_rows: int) -> slice:
    """Where this process's ``num_rows`` rows stand among those of all, of which each has as many."""
    return slice(rank() * num_rows, (rank() + 1) * num_rows)


def total(tensor: Tensor) -> Tensor:
    """The sum over the processes, put into ``tensor`` and returned."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def is_same(number: int) -> bool:
    """Whether all processes have this number."""
    if world_size() == 1:
        return True
    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    return len(set(all_gathered(torch.tensor([number], device=device)).flatten().tolist())) == 1


def all_gathered(values: Tensor) -> Tensor:
    """(world_size, ...) of what each process has, all of one shape."""
    found = values.new_empty(world_size(), *values.shape)
    dist.all_gather(list(found), values.contiguous())
    return found


def swapped(values: Tensor, outgoing: list[int], incoming: list[int]) -> Tensor:
    """Rows from every process, in rank order, for ``values`` (rows, ...) that go to them in runs of these lengths."""
    found = values.new_empty(sum(incoming), *values.shape[1:])
    dist.all_to_all_single(found, values.contiguous(), incoming, outgoing)
    return found


def rank() -> int:
    """This process's place among them; 0 when it is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
