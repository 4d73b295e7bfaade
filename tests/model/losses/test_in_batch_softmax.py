"""The in-batch softmax against a loop over rows and columns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from raycl.model.losses import in_batch_softmax

ROWS, DIM = 6, 5
WHOLE = torch.arange(ROWS)


def vectors(seed: int, rows: int = ROWS) -> Tensor:
    drawn = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(drawn, dim=-1)


USERS, ITEMS = vectors(1), vectors(2)
DIFFERENT = torch.arange(10, 10 + ROWS)
REPEATED = torch.tensor([10, 11, 10, 12, 11, 10])
LOG_Q = torch.randn(ROWS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
ONES = torch.ones(ROWS, dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 0.5, 3.0, 0.0, 2.0, 1.0], dtype=torch.float64)


def naive(
    users: Tensor, items: Tensor, own: Tensor, ids: Tensor, log_q: Tensor | None, weights: Tensor, t: float
) -> float:
    total = 0.0
    for row in range(len(users)):
        mine = int(own[row])
        scores = {}
        for column in range(len(items)):
            if column == mine or ids[column] != ids[mine]:
                scores[column] = float(users[row] @ items[column]) / t - (
                    float(log_q[column]) if log_q is not None else 0
                )
        total += float(weights[row]) * (math.log(sum(map(math.exp, scores.values()))) - scores[mine])
    return total / len(users)


@pytest.mark.parametrize("ids", [DIFFERENT, REPEATED])
@pytest.mark.parametrize("log_q", [None, LOG_Q])
@pytest.mark.parametrize("weights", [ONES, WEIGHTS])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_loss_is_that_of_a_loop(ids: Tensor, log_q: Tensor | None, weights: Tensor, temperature: float) -> None:
    for own in (WHOLE, torch.tensor([3, 3, 0, 5, 1, 2])):
        found = in_batch_softmax.loss(USERS, ITEMS, own, ids, log_q, weights, temperature)
        assert found.item() == pytest.approx(naive(USERS, ITEMS, own, ids, log_q, weights, temperature), rel=1e-12)


def test_the_log_q_of_a_constant_changes_nothing() -> None:
    plain = in_batch_softmax.loss(USERS, ITEMS, WHOLE, REPEATED, None, WEIGHTS, 0.1)
    shifted = in_batch_softmax.loss(USERS, ITEMS, WHOLE, REPEATED, torch.full_like(LOG_Q, -4.0), WEIGHTS, 0.1)
    assert shifted.item() == pytest.approx(plain.item(), rel=1e-12)


def test_log_q_relieves_popular_negatives() -> None:
    popular = torch.zeros(ROWS, dtype=torch.float64)
    popular[1] = 3.0  # the item in column 1 is drawn more often
    plain = in_batch_softmax.loss(USERS[:1], ITEMS, WHOLE[:1], DIFFERENT, None, ONES[:1], 0.1)
    assert in_batch_softmax.loss(USERS[:1], ITEMS, WHOLE[:1], DIFFERENT, popular, ONES[:1], 0.1) < plain


@pytest.mark.parametrize("num_parts", [1, 2, 3])
def test_the_mean_over_equal_parts_is_the_whole(num_parts: int) -> None:
    parts = [
        in_batch_softmax.loss(USERS[rows], ITEMS, rows, REPEATED, LOG_Q, WEIGHTS[rows], 0.1)
        for rows in WHOLE.chunk(num_parts)
    ]
    together = in_batch_softmax.loss(USERS, ITEMS, WHOLE, REPEATED, LOG_Q, WEIGHTS, 0.1)
    assert (sum(parts) / num_parts).item() == pytest.approx(together.item(), rel=1e-12)  # type: ignore[union-attr]


def test_another_column_of_the_own_item_is_no_negative() -> None:
    items = ITEMS.clone().requires_grad_()
    in_batch_softmax.loss(USERS[:1], items, WHOLE[:1], REPEATED, None, ONES[:1], 0.1).backward()  # type: ignore[no-untyped-call]
    assert items.grad is not None
    touched = items.grad.abs().sum(1) > 0
    assert touched.tolist() == [True, True, False, True, True, False]


def test_a_batch_of_one_item_alone_has_nothing_to_learn() -> None:
    same = torch.full((ROWS,), 7)
    assert in_batch_softmax.loss(USERS, ITEMS, WHOLE, same, LOG_Q, WEIGHTS, 0.1).item() == 0.0


def test_a_row_of_weight_zero_has_no_gradient() -> None:
    users = USERS.clone().requires_grad_()
    in_batch_softmax.loss(users, ITEMS, WHOLE, DIFFERENT, LOG_Q, WEIGHTS, 0.1).backward()  # type: ignore[no-untyped-call]
    assert users.grad is not None
    assert (users.grad.abs().sum(1) > 0).tolist() == [weight > 0 for weight in WEIGHTS.tolist()]
