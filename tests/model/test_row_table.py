"""Tables that are read by rows: PyTorch's own layers say what comes out and what is learned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raycl.model.row_table import RowTable, distinct, tables_of

ROWS = torch.tensor([[3, 1, 1], [0, 3, 4], [1, 1, 1]])
WEIGHTS = torch.tensor([[0.5, 0.0, 2.0], [1.0, 1.0, -1.0], [0.2, 0.3, 0.5]])


def table(num_zeros: int = 0) -> RowTable:
    torch.manual_seed(3)
    return RowTable(6, 4, num_zeros)


def gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def test_rows_come_out_as_an_embedding_gives_them_with_and_without_gradients() -> None:
    found = table()
    expected = nn.functional.embedding(ROWS, found.weight)
    assert torch.equal(found(ROWS), expected)
    with torch.no_grad():
        assert torch.equal(found(ROWS), expected)


def test_sums_come_out_as_an_embedding_bag_gives_them_with_and_without_gradients() -> None:
    found = table()
    expected = (nn.functional.embedding(ROWS, found.weight) * WEIGHTS[..., None]).sum(1)
    assert torch.allclose(found.sums(ROWS, WEIGHTS), expected, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(found.sums(ROWS, WEIGHTS), expected, atol=1e-6)


def test_the_gradient_is_that_of_an_embedding_and_holds_each_row_that_was_read_once() -> None:
    found, plain = table(), table().weight.detach().requires_grad_()
    torch.autograd.backward(found(ROWS).square().sum() + found.sums(ROWS, WEIGHTS).square().sum())
    expected = nn.functional.embedding(ROWS, plain)
    torch.autograd.backward(expected.square().sum() + (expected * WEIGHTS[..., None]).sum(1).square().sum())
    assert torch.allclose(gradient(found.weight).to_dense(), gradient(plain), atol=1e-6)
    found.weight.grad = None
    torch.autograd.backward(found(ROWS).sum())
    assert gradient(found.weight)._indices().tolist() == [[0, 1, 3, 4]]


def test_the_first_rows_are_zero_where_that_is_asked_for_and_others_of_about_unit_length() -> None:
    assert [bool(row.any()) for row in table(2).weight] == [False, False, True, True, True, True]
    assert abs(RowTable(500, 64).weight.norm(dim=1).mean().item() - 1.0) < 0.05


def test_the_tables_of_a_module_are_found_by_the_names_of_their_weights() -> None:
    module = nn.ModuleDict({"one": table(), "more": nn.ModuleList([nn.Linear(2, 2), table()])})
    assert list(tables_of(module)) == ["one.weight", "more.1.weight"]
    assert tables_of(module).keys() <= dict(module.named_parameters()).keys()


@pytest.mark.parametrize("num_rows", [1, 5, 1_000, 100_000])
@pytest.mark.parametrize("shape", [(0,), (1,), (40, 3), (2_000,)])
def test_rows_are_found_once_as_pytorch_finds_them(num_rows: int, shape: tuple[int, ...]) -> None:
    rows = torch.randint(num_rows, shape, generator=torch.Generator().manual_seed(num_rows))
    once, places = distinct(rows, num_rows)
    expected = torch.unique(rows, return_inverse=True)
    assert torch.equal(once, expected[0])
    assert torch.equal(places, expected[1])


@pytest.mark.parametrize("num_rows", [6, 100_000])
@pytest.mark.parametrize("beyond", [-1, 0])
def test_a_row_that_a_table_does_not_have_is_an_error(num_rows: int, beyond: int) -> None:
    rows = torch.tensor([1, 2, num_rows if beyond == 0 else beyond])
    with pytest.raises(IndexError):
        RowTable(num_rows, 2)(rows)
