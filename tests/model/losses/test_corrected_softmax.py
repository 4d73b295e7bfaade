"""The corrected softmax: its formula by hand, and the gradient that it was made for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from raycl.model.losses import corrected_softmax
from tests.model.losses.cases import Case, check_contract, every_case


def loss(case: Case) -> Tensor:
    log_q = case.log_q
    assert log_q is not None
    return corrected_softmax.loss(
        case.users, case.items, case.own, case.negative, log_q, case.weights, case.temperature
    )


def with_log_q(case: Case) -> Case:
    return case if case.log_q is not None else replace(case, log_q=-(case.ids - 9).double().sqrt())


def naive(case: Case) -> float:
    def of_row(row: int) -> float:
        assert case.log_q is not None
        mine, columns = int(case.own[row]), case.against(row)
        if not columns:
            return 0.0
        rest = 1 - math.exp(float(case.log_q[mine]))
        drawn = [
            math.exp(case.score(row, column) / case.temperature) / (math.exp(float(case.log_q[column])) / rest)
            for column in columns
        ]
        total, score = sum(drawn) / len(drawn), case.score(row, mine) / case.temperature
        return -(1 - math.exp(score) / (math.exp(score) + total)) * (score - math.log(total))

    return case.mean_of_rows(of_row)


@every_case
def test_the_value_is_that_of_a_loop(case: Case) -> None:
    case = with_log_q(case)
    assert loss(case).item() == pytest.approx(naive(case), rel=1e-9, abs=1e-12)


@every_case
def test_parts_add_up_and_rows_of_weight_zero_learn_nothing(case: Case) -> None:
    check_contract(loss, with_log_q(case))


def test_with_every_other_item_drawn_evenly_the_gradient_is_that_of_the_full_softmax() -> None:
    """Then nothing is estimated: the own item's gradient is P - 1, and those of the others are their probabilities."""
    logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    own, eye = torch.tensor([2]), torch.eye(6, dtype=torch.float64)
    log_q = torch.full((6,), -math.log(6), dtype=torch.float64)
    value = corrected_softmax.loss(
        logits, eye, own, torch.arange(6)[None, :] != 2, log_q, torch.ones(1, dtype=torch.float64), 1.0
    )
    (found,) = torch.autograd.grad(value, [logits])
    torch.testing.assert_close(found, logits.detach().softmax(1) - eye[own])
