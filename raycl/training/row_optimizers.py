"""Optimizers of embedding tables: what a step reads and writes is the rows that have a gradient, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from raycl.training import row_gradients

_CELLS = 2**17
"""Numbers of a block of rows on a CPU: what a step makes of each stays in a core's cache till it is used."""


class RowAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) of the touched rows, with decoupled decay of them: lazy Adam.

    A row's moments stand still while it is not touched; where every row is touched in every step, this is AdamW.
    """

    def __init__(
        self,
        tables: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(tables, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the rows that have a gradient, each of them once."""
        for group in self.param_groups:
            (first, second), rate = group["betas"], group["lr"]
            for table in group["params"]:
                state = self.state[table]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
                state["step"] += 1
                count = float(state["step"])
                for rows, gradient in _blocks(table):
                    mean = state["exp_avg"].index_select(0, rows).lerp_(gradient, 1 - first)
                    square = state["exp_avg_sq"].index_select(0, rows).mul_(second)
                    square.addcmul_(gradient, gradient, value=1 - second)
                    _put(state["exp_avg"], rows, mean)
                    _put(state["exp_avg_sq"], rows, square)
                    scale = square.div_(1 - second**count).sqrt_().add_(group["eps"])
                    moved = table.index_select(0, rows).mul_(1 - rate * group["weight_decay"])
                    _put(table, rows, moved.addcdiv_(mean, scale, value=-rate / (1 - first**count)))


class RowAdagrad(torch.optim.Optimizer):
    """Adagrad (Duchi et al. 2011) with one number of state a row: the sum of the mean squares of its gradients.

    A 64th of Adam's state at 64 dimensions; the usual one for tables of many rows (row-wise Adagrad of DLRM,
    Mudigere et al., ISCA 2022).
    """

    def __init__(
        self, tables: Iterable[nn.Parameter], lr: float = 1e-2, eps: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        super().__init__(tables, {"lr": lr, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the rows that have a gradient, each of them once."""
        for group in self.param_groups:
            for table in group["params"]:
                state = self.state[table]
                if not state:
                    state["sum"] = table.new_zeros(len(table))
                for rows, gradient in _blocks(table):
                    total = state["sum"].index_select(0, rows).add_(gradient.square().mean(1))
                    _put(state["sum"], rows, total)
                    moved = table.index_select(0, rows).mul_(1 - group["lr"] * group["weight_decay"])
                    moved.sub_(gradient * (group["lr"] / total.sqrt().add_(group["eps"]))[:, None])
                    _put(table, rows, moved)  # rows of a large table come from afar: each is read once


def _put(table: Tensor, rows: Tensor, values: Tensor) -> None:
    """``index_copy_``, which takes twice as long as NumPy on a CPU."""
    if table.device.type == "cpu":
        table.detach().numpy()[rows.numpy()] = values.numpy()
    else:
        table.index_copy_(0, rows, values)


def _blocks(table: nn.Parameter) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of ``table`` that have a gradient, and their gradients, a block of rows at a time."""
    rows, gradient = row_gradients.parts(table)
    size = max(_CELLS // table.shape[1] if table.device.type == "cpu" else len(rows), 1)
    return zip(torch.split(rows, size), torch.split(gradient, size), strict=True)
