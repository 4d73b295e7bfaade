"""Gradients of rows in one process; what several have together is in test_exchange."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from raycl.model.row_table import RowTable
from raycl.training import exchange, row_gradients


def table() -> RowTable:
    torch.manual_seed(2)
    return RowTable(7, 3)


def gradient_of(one: RowTable) -> Tensor:
    assert one.weight.grad is not None
    return one.weight.grad


def test_rows_that_were_read_in_several_passes_are_added_up_and_put_in_order() -> None:
    one = table()
    for rows in ([4, 1], [1, 6]):
        torch.autograd.backward(one(torch.tensor(rows)).sum() * rows[0])
    before = gradient_of(one).to_dense()
    row_gradients.average([one], row_gradients.Means())
    assert row_gradients.parts(one.weight)[0].tolist() == [1, 4, 6]
    assert torch.equal(gradient_of(one).to_dense(), before)
    assert before[:, 0].tolist() == [0, 5, 0, 0, 4, 0, 1]


def test_a_table_that_a_step_did_not_read_has_a_gradient_of_no_rows() -> None:
    one = table()
    row_gradients.average([one], row_gradients.Means())
    assert row_gradients.parts(one.weight)[0].tolist() == []
    assert not gradient_of(one).to_dense().any()


def test_clipping_counts_dense_and_sparse_gradients_together_and_scales_both() -> None:
    one, layer = table(), nn.Linear(3, 1)
    torch.autograd.backward(layer(one(torch.tensor([1, 2]))).square().sum())
    row_gradients.average([one], row_gradients.Means())
    dense = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]

    def all_gradients() -> list[Tensor]:
        return [gradient.to_dense().clone() for gradient in (*dense, gradient_of(one))]

    before = all_gradients()
    total = torch.cat([gradient.flatten() for gradient in before]).norm()
    assert torch.allclose(row_gradients.clip(dense, [one], float(total) / 4), total)
    for gradient, was in zip(all_gradients(), before, strict=True):
        assert torch.allclose(gradient, was / 4, rtol=1e-4)
    row_gradients.clip(dense, [one], 1e9)
    for gradient, was in zip(all_gradients(), before, strict=True):
        assert torch.allclose(gradient, was / 4, rtol=1e-4)


def between(world: int) -> tuple[threading.local, Callable[[Tensor], Tensor]]:
    """``exchange.all_gathered`` between threads, each of which says its ``rank`` in the first, and counts ``calls``."""
    of, sent, together = threading.local(), [torch.empty(0)] * world, threading.Barrier(world, timeout=30.0)

    def all_gathered(values: Tensor) -> Tensor:
        sent[of.rank] = values
        together.wait()
        found = torch.stack(sent)
        together.wait()
        of.calls += 1
        return found

    return of, all_gathered


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_means_are_those_of_all_processes_however_many_rows_each_has(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, heights, dim = 3, (50, 9), 5
    counts = [
        [[0, 0], [0, 0], [0, 0]],
        [[3, 0], [20, 9], [1, 1]],
        [[4, 1], [20, 8], [0, 0]],
        [[50, 9], [1, 0], [49, 9]],
        [[50, 9], [1, 0], [49, 9]],
        [[1, 0], [0, 0], [0, 1]],
    ]
    generator = torch.Generator().manual_seed(5)
    steps = [
        [
            [
                (
                    torch.randperm(height, generator=generator)[:count].sort().values,
                    torch.randint(1, 8, (count, dim), generator=generator).to(dtype),
                )
                for height, count in zip(heights, of_process, strict=True)
            ]
            for of_process in of_step
        ]
        for of_step in counts
    ]
    of, all_gathered = between(world)
    monkeypatch.setattr(exchange, "all_gathered", all_gathered)

    def process(rank: int) -> tuple[list[list[tuple[Tensor, Tensor]]], list[int]]:
        of.rank, of.calls = rank, 0
        means, found, calls = row_gradients.Means(), [], []
        for mine in steps:
            found.append(means.of(mine[rank], heights))
            calls.append(of.calls)
        return found, calls

    with ThreadPoolExecutor(world) as pool:
        ended = list(pool.map(process, range(world)))
    for found, calls in ended:
        assert calls == [1, 3, 4, 6, 7, 8]  # one exchange a step, and another where a process had too little room
        for means, mine in zip(found, steps, strict=True):
            for place, (height, (rows, values)) in enumerate(zip(heights, means, strict=True)):
                whole = torch.zeros(height, dim, dtype=dtype)
                for its_rows, its_values in (one[place] for one in mine):
                    whole[its_rows] += its_values
                assert rows.tolist() == whole.any(1).nonzero()[:, 0].tolist()
                assert torch.equal(values, whole[rows] / world)
