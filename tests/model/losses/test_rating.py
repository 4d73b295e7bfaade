"""Ratings regressed on cosine, against a loop over rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raycl.model.losses import rating
from tests.model.losses.cases import Case, check_contract, every_case


def targets(case: Case) -> Tensor:
    return rating.cosine_of((case.ids[case.own] - 9).double(), 1.0, 6.0)


def loss(case: Case) -> Tensor:
    return rating.loss(case.users, case.items[case.own], targets(case), case.weights)


@every_case
def test_the_loss_is_that_of_a_loop(case: Case) -> None:
    wanted = targets(case)
    expected = case.mean_of_rows(lambda row: (case.score(row, int(case.own[row])) - float(wanted[row])) ** 2)
    assert loss(case).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every_case
def test_parts_add_up_and_rows_of_weight_zero_learn_nothing(case: Case) -> None:
    check_contract(loss, case)


def test_ratings_lie_evenly_between_opposite_and_alike() -> None:
    found = rating.cosine_of(torch.tensor([0.0, 1.0, 2.0, 3.0, 5.0, 9.0]), 1.0, 5.0)
    assert found.tolist() == [-1.0, -1.0, -0.5, 0.0, 1.0, 1.0]


def test_a_cosine_that_is_the_rating_costs_nothing() -> None:
    users = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    items = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert rating.loss(users, items, rating.cosine_of(torch.tensor([3.0, 5.0]), 1.0, 5.0), torch.ones(2)).item() == 0.0
