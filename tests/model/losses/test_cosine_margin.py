"""Cosine contrastive loss against a loop over rows and negatives."""

from __future__ import annotations

import pytest
from torch import Tensor

from raycl.model.losses import cosine_margin
from tests.model.losses.cases import Case, check_contract, every_case


def loss(case: Case) -> Tensor:
    return cosine_margin.loss(
        case.users, case.items, case.own, case.negative, case.log_q, case.weights, margin=0.2, negative_weight=1.5
    )


def naive(case: Case) -> float:
    def of_row(row: int) -> float:
        apart = case.mean_of_negatives(row, lambda other: max(0.0, other - 0.2))
        return 1 - case.score(row, int(case.own[row])) + 1.5 * apart

    return case.mean_of_rows(of_row)


@every_case
def test_the_loss_is_that_of_a_loop(case: Case) -> None:
    assert loss(case).item() == pytest.approx(naive(case), rel=1e-9, abs=1e-12)


@every_case
def test_parts_add_up_and_rows_of_weight_zero_learn_nothing(case: Case) -> None:
    check_contract(loss, case)
