"""Gradients of rows in one process; what several have together is in test_exchange."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raycl.model.row_table import RowTable
from raycl.training import row_gradients


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
    row_gradients.average([one])
    assert row_gradients.parts(one.weight)[0].tolist() == [1, 4, 6]
    assert torch.equal(gradient_of(one).to_dense(), before)
    assert before[:, 0].tolist() == [0, 5, 0, 0, 4, 0, 1]


def test_a_table_that_a_step_did_not_read_has_a_gradient_of_no_rows() -> None:
    one = table()
    row_gradients.average([one])
    assert row_gradients.parts(one.weight)[0].tolist() == []
    assert not gradient_of(one).to_dense().any()


def test_clipping_counts_dense_and_sparse_gradients_together_and_scales_both() -> None:
    one, layer = table(), nn.Linear(3, 1)
    torch.autograd.backward(layer(one(torch.tensor([1, 2]))).square().sum())
    row_gradients.average([one])
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
