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
