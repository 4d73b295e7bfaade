"""Triplet margin loss against a loop over rows and negatives."""

from __future__ import annotations

import pytest
from torch import Tensor

from raycl.model.losses import triplet
from tests.model.losses.cases import Case, check_contract, every_case


def loss(case: Case) -> Tensor:
    return triplet.loss(case.users, case.items, case.own, case.negative, case.log_q, case.weights, 0.3)


def naive(case: Case) -> float:
    def of_row(row: int) -> float:
        mine = case.score(row, int(case.own[row]))
        return case.mean_of_negatives(row, lambda other: max(0.0, 0.3 - mine + other))

    return case.mean_of_rows(of_row)


@every_case
def test_the_loss_is_that_of_a_loop(case: Case) -> None:
    assert loss(case).item() == pytest.approx(naive(case), rel=1e-9, abs=1e-12)


@every_case
def test_parts_add_up_and_rows_of_weight_zero_learn_nothing(case: Case) -> None:
    check_contract(loss, case)
