"""Several own items a row, against a loop over them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raycl.model.losses import multi_positive, softmax
from tests.model.losses.cases import Case, check_contract, every_case


def liked(case: Case) -> Tensor:
    """The own column, and every column whose item is 11."""
    return (case.ids == 11).expand(len(case.users), -1).scatter(1, case.own[:, None], True)


def loss(case: Case) -> Tensor:
    positive = liked(case)
    return multi_positive.loss(
        case.users, case.items, positive, case.negative & ~positive, case.log_q, case.weights, case.temperature
    )


def naive(case: Case) -> float:
    def of_row(row: int) -> float:
        mine = [column for column in range(len(case.ids)) if column == case.own[row] or case.ids[column] == 11]
        total = sum(math.exp(case.logit(row, column)) for column in case.against(row) if column not in mine)
        each = [math.log(math.exp(case.logit(row, column)) + total) - case.logit(row, column) for column in mine]
        return sum(each) / len(each)

    return case.mean_of_rows(of_row)


@every_case
def test_the_loss_is_that_of_a_loop(case: Case) -> None:
    assert loss(case).item() == pytest.approx(naive(case), rel=1e-9, abs=1e-12)


@every_case
def test_parts_add_up_and_rows_of_weight_zero_learn_nothing(case: Case) -> None:
    check_contract(loss, case)


@every_case
def test_with_one_own_item_a_row_it_is_the_softmax(case: Case) -> None:
    single = torch.zeros_like(case.negative).scatter(1, case.own[:, None], True)
    rest = (case.negative, case.log_q, case.weights, case.temperature)
    found = multi_positive.loss(case.users, case.items, single, *rest)
    torch.testing.assert_close(found, softmax.loss(case.users, case.items, case.own, *rest))
