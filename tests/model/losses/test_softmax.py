"""The softmax over candidates against a loop over rows and columns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from raycl.model.losses import negatives, softmax
from tests.model.losses.cases import Case, check_contract, every_case, vectors


def loss(case: Case) -> Tensor:
    return softmax.loss(case.users, case.items, case.own, case.negative, case.log_q, case.weights, case.temperature)


def naive(case: Case) -> float:
    def of_row(row: int) -> float:
        mine = case.logit(row, int(case.own[row]))
        return math.log(math.exp(mine) + sum(math.exp(case.logit(row, column)) for column in case.against(row))) - mine

    return case.mean_of_rows(of_row)


@every_case
def test_the_loss_is_that_of_a_loop(case: Case) -> None:
    assert loss(case).item() == pytest.approx(naive(case), rel=1e-9, abs=1e-12)


@every_case
def test_parts_add_up_and_rows_of_weight_zero_learn_nothing(case: Case) -> None:
    check_contract(loss, case)


@every_case
def test_a_temperature_that_is_learned_has_the_gradient_of_the_difference_quotient(case: Case) -> None:
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def at(value: Tensor) -> Tensor:
        return softmax.loss(case.users, case.items, case.own, case.negative, case.log_q, case.weights, value)

    (found,) = torch.autograd.grad(at(temperature), [temperature])
    step = 1e-5
    expected = (at(temperature.detach() + step) - at(temperature.detach() - step)) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


@every_case
def test_the_log_q_of_a_constant_changes_nothing(case: Case) -> None:
    plain, even = replace(case, log_q=None), replace(case, log_q=torch.full((len(case.ids),), -4.0))
    assert loss(even).item() == pytest.approx(loss(plain).item(), rel=1e-9, abs=1e-12)


GENERATOR = torch.Generator().manual_seed(1)
USERS, ITEMS = vectors(1, 5, GENERATOR), vectors(6, 5, GENERATOR)
OWN, ONE = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.float64)


def test_log_q_relieves_popular_negatives() -> None:
    negative = negatives.of(OWN, torch.arange(6))
    popular = torch.zeros(6, dtype=torch.float64)
    popular[1] = 3.0  # the item in column 1 is drawn more often
    plain = softmax.loss(USERS, ITEMS, OWN, negative, None, ONE, 0.1)
    assert softmax.loss(USERS, ITEMS, OWN, negative, popular, ONE, 0.1) < plain


def test_log_q_is_not_divided_by_the_temperature() -> None:
    negative = negatives.of(OWN, torch.arange(6))
    alike = torch.full_like(ITEMS, 0.2)
    log_q = torch.tensor([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], dtype=torch.float64).log()
    expected = math.log((1 / 0.5 + 5 / 0.1) / (1 / 0.5))
    for temperature in (0.01, 1.0):
        found = softmax.loss(USERS, alike, OWN, negative, log_q, ONE, temperature)
        assert found.item() == pytest.approx(expected, rel=1e-9)


def test_another_column_of_the_own_item_is_no_negative() -> None:
    items = ITEMS.clone().requires_grad_()
    negative = negatives.of(OWN, torch.tensor([10, 11, 10, 12, 11, 10]))
    softmax.loss(USERS, items, OWN, negative, None, ONE, 0.1).backward()  # type: ignore[no-untyped-call]
    assert items.grad is not None
    assert (items.grad.abs().sum(1) > 0).tolist() == [True, True, False, True, True, False]


def test_a_batch_of_one_item_alone_has_nothing_to_learn() -> None:
    negative = negatives.of(OWN, torch.full((6,), 7))
    assert softmax.loss(USERS, ITEMS, OWN, negative, None, ONE, 0.1).item() == 0.0


def whole(
    users: Tensor,
    items: Tensor,
    own: Tensor,
    negative: Tensor,
    log_q: Tensor | None,
    weights: Tensor,
    temperature: Tensor | float,
    private: Tensor | None = None,
) -> Tensor:
    """The same by PyTorch's own cross entropy, all rows at once."""
    logits = negatives.scores(users / temperature, items, private, log_q)
    left_out = (~negative).scatter(1, own[:, None], False)
    told = torch.nn.functional.cross_entropy(logits.masked_fill(left_out, float("-inf")), own, reduction="none")
    return (told * weights).mean()


@pytest.mark.parametrize("cells", [1, 20, 10_000], ids=["a row a block", "some rows", "one block"])
@pytest.mark.parametrize("some", [0, 3], ids=["no private columns", "private columns"])
@pytest.mark.parametrize("few", [0, 64], ids=["left out one by one", "left out as a mask"])
@pytest.mark.parametrize("corrects", [False, True])
def test_blocks_have_the_gradients_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, cells: int, some: int, few: int, *, corrects: bool
) -> None:
    monkeypatch.setitem(softmax._CELLS, "cpu", cells)
    monkeypatch.setattr(softmax, "_FEW", few)
    generator = torch.Generator().manual_seed(4)
    own, weights = torch.arange(7) + 1, torch.rand(7, generator=generator, dtype=torch.float64)
    negative = torch.rand(7, 9 + some, generator=generator) < 0.7
    log_q = torch.rand(9 + some, generator=generator, dtype=torch.float64).log() if corrects else None
    given = [vectors(7, 5, generator), vectors(9, 5, generator), torch.tensor(0.2, dtype=torch.float64)]
    if some:
        given.append(vectors(7 * some, 5, generator).view(7, some, 5))
    gradients, values = [], []
    for one in (softmax.loss, whole):
        users, items, temperature, *private = leaves = [tensor.clone().requires_grad_() for tensor in given]
        value = one(users, items, own, negative, log_q, weights, temperature, *private) * 3.0
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, leaves))
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_autocast_around_it_changes_nothing() -> None:
    negative = negatives.of(OWN, torch.arange(6))
    users, items = USERS.float().requires_grad_(), ITEMS.float().requires_grad_()
    plain = softmax.loss(users, items, OWN, negative, None, ONE.float(), 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found = softmax.loss(users, items, OWN, negative, None, ONE.float(), 0.1)
    assert found.item() == plain.item()
