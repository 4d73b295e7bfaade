"""What the processes of one training run exchange, through ``torch.distributed`` alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Later = Callable[[], Tensor]
"""Waits for what is being exchanged while this process goes on; on a GPU the kernels that come after wait."""


class _Gather(torch.autograd.Function):
    """All processes' rows, in rank order; the gradient of a row is the sum over the processes that used it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.num_rows = rows.shape[0]
        return all_gathered(rows).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        mine = torch.empty_like(gradients[0], memory_format=torch.contiguous_format)
        dist.all_to_all_single(mine, gradients[0].contiguous())
        return mine.view(dist.get_world_size(), ctx.num_rows, *mine.shape[1:]).sum(0)


def gather(rows: Tensor) -> Tensor:
    """Rows of every process end to end, (world_size * rows, ...); the same number of rows in each."""
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def gathered_later(rows: Tensor) -> Later:
    """``gather`` of what has no gradient."""
    if world_size() == 1:
        return lambda: rows
    found, work = _gathering(rows)
    return _after(work, found.flatten(0, 1))


def mean_later(values: Tensor) -> Later:
    """The mean over the processes of each number."""
    if world_size() == 1:
        return lambda: values
    total = values.detach() / world_size()
    return _after(dist.all_reduce(total, async_op=True), total)


def mean(value: Tensor) -> Tensor:
    """The mean of a scalar over the processes."""
    return mean_later(value)()


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
    found, work = _gathering(values)
    work.wait()
    return found


def _after(work: dist.Work, found: Tensor) -> Later:
    def get() -> Tensor:
        work.wait()
        return found

    return get


def _gathering(values: Tensor) -> tuple[Tensor, dist.Work]:
    found = values.new_empty(world_size(), *values.shape)
    if dist.get_backend() == "gloo":  # takes two to four times as long for its own all_gather
        return found, dist.all_to_all_single(found, values.expand_as(found).contiguous(), async_op=True)
    return found, dist.all_gather(list(found), values.contiguous(), async_op=True)


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
