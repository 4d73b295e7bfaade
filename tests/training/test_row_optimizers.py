"""What moves a table's rows: as PyTorch's optimizers do where those do the same, and nothing that was not read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raycl.model.row_table import RowTable
from raycl.training import row_gradients
from raycl.training.row_optimizers import RowAdagrad, RowAdam

EVERY = torch.arange(7)
Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def table() -> RowTable:
    torch.manual_seed(2)
    return RowTable(7, 3)


def run(one: RowTable, make: Make, reads: Iterable[Tensor]) -> Tensor:
    """The weights after steps that read these rows."""
    optimizer = make([one.weight])
    for number, rows in enumerate(reads):
        optimizer.zero_grad()
        torch.autograd.backward((one(rows) - number).square().sum())
        row_gradients.average([one], row_gradients.Means())
        optimizer.step()
    return one.weight.detach()


def dense(make: Make, reads: Iterable[Tensor]) -> Tensor:
    """The same with PyTorch's layer and optimizer."""
    plain = nn.Parameter(table().weight.detach().clone())
    optimizer = make([plain])
    for number, rows in enumerate(reads):
        optimizer.zero_grad()
        torch.autograd.backward((nn.functional.embedding(rows, plain) - number).square().sum())
        optimizer.step()
    return plain.detach()


def test_adam_is_that_of_pytorch_where_every_row_is_read_in_every_step() -> None:
    reads = [EVERY, torch.cat([EVERY, EVERY[:3]]), EVERY]
    found = run(table(), lambda tables: RowAdam(tables, lr=0.1, weight_decay=0.2), reads)
    expected = dense(lambda tables: torch.optim.AdamW(tables, lr=0.1, weight_decay=0.2), reads)
    assert torch.allclose(found, expected, atol=1e-6)


def test_adam_is_that_of_pytorch_for_sparse_gradients() -> None:
    reads = [torch.tensor([1, 4, 4]), torch.tensor([0]), torch.tensor([4, 5])]
    plain = nn.Parameter(table().weight.detach().clone())
    optimizer = torch.optim.SparseAdam([plain], lr=0.1)
    for number, rows in enumerate(reads):
        optimizer.zero_grad()
        torch.autograd.backward((nn.functional.embedding(rows, plain, sparse=True) - number).square().sum())
        optimizer.step()  # type: ignore[no-untyped-call]
    assert torch.allclose(run(table(), lambda tables: RowAdam(tables, lr=0.1), reads), plain, atol=1e-6)


def test_adagrad_is_that_of_pytorch_on_rows_of_one_number() -> None:
    """There the mean over a row is the number itself."""
    reads = [torch.tensor([1, 2]), torch.tensor([1, 1, 0])]
    weights = torch.tensor([[0.3], [0.5], [-0.2]])
    one = RowTable(3, 1)
    one.weight.data.copy_(weights)
    plain = nn.Parameter(weights.clone())
    optimizer = torch.optim.Adagrad([plain], lr=0.1, eps=1e-8)
    for number, rows in enumerate(reads):
        optimizer.zero_grad()
        torch.autograd.backward((nn.functional.embedding(rows, plain) - number).square().sum())
        optimizer.step()
    assert torch.allclose(run(one, lambda tables: RowAdagrad(tables, lr=0.1), reads), plain, atol=1e-6)


def test_adagrad_moves_all_of_a_row_by_one_scale() -> None:
    one, before = table(), table().weight.detach()
    found = run(one, lambda tables: RowAdagrad(tables, lr=0.1, weight_decay=0.5), [torch.tensor([2])])
    slope = 2 * before[2]
    expected = before[2] - 0.1 * slope / slope.square().mean().sqrt() - 0.1 * 0.5 * before[2]
    assert torch.allclose(found[2], expected, atol=1e-6)


@pytest.mark.parametrize("kind", [RowAdam, RowAdagrad])
def test_rows_that_a_step_does_not_read_keep_every_bit_and_their_state(kind: Any) -> None:
    one, before = table(), table().weight.detach()
    optimizer = kind([one.weight], lr=0.1, weight_decay=0.5)
    reads = [torch.tensor([1, 4]), torch.tensor([1])]
    found = run(one, lambda _: optimizer, reads)
    assert [row for row in range(7) if not torch.equal(found[row], before[row])] == [1, 4]
    for name, state in optimizer.state[one.weight].items():
        if name != "step":
            assert [row for row in range(7) if state[row].any()] == [1, 4]


@pytest.mark.parametrize("kind", [RowAdam, RowAdagrad])
def test_a_row_of_zeros_that_nothing_is_learned_for_stays_zero(kind: Any) -> None:
    one = RowTable(3, 2, num_zeros=1)
    optimizer = kind([one.weight], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        torch.autograd.backward(one.sums(torch.tensor([[0, 1]]), torch.tensor([[0.0, 1.0]])).sum())
        optimizer.step()
    assert not one.weight[0].any()
    assert not one.weight.isnan().any()
