"""Which columns are negatives, and what they count, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.model.losses import negatives
from tests.model.losses.cases import Case, cases, every_case


@every_case
def test_negatives_are_the_columns_of_other_items(case: Case) -> None:
    for row, found in enumerate(case.negative):
        assert found.nonzero()[:, 0].tolist() == case.against(row)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(cases(), st.integers(0, 10), st.integers(0, 10), st.integers(0, 2**32))
def test_the_nearest_are_kept_and_others_in_their_order(case: Case, hard: int, drawn: int, seed: int) -> None:
    scores = case.users @ case.items.T
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(len(case.ids), generator=generator) for _ in case.users])
    found = negatives.hardest(scores, case.negative, order, hard, drawn)
    for row in range(len(case.users)):
        nearest = sorted(case.against(row), key=lambda column: -float(scores[row, column]))
        others = sorted(nearest[hard:], key=lambda column: int(order[row, column]))
        assert found[row].nonzero()[:, 0].tolist() == sorted(nearest[:hard] + others[:drawn])


@every_case
def test_shares_are_one_over_q_and_sum_to_one(case: Case) -> None:
    found = negatives.shares(case.negative, case.log_q, torch.float64)
    for row in range(len(case.users)):
        columns = case.against(row)
        inverse = {c: 1.0 if case.log_q is None else math.exp(-float(case.log_q[c])) for c in columns}
        expected = [inverse[c] / sum(inverse.values()) if c in inverse else 0.0 for c in range(len(case.ids))]
        assert found[row].tolist() == pytest.approx(expected, rel=1e-9)


def test_a_mean_by_shares_is_one_over_items_drawn_evenly() -> None:
    """Of a value that differs by item, however often the sampler brings each."""
    values = torch.arange(10, dtype=torch.float64)
    q = torch.arange(1, 11, dtype=torch.float64) / 55
    drawn = torch.multinomial(q, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    negative = torch.ones(1, len(drawn), dtype=torch.bool)
    found = (negatives.shares(negative, q[drawn].log(), torch.float64) * values[drawn]).sum()
    assert found.item() == pytest.approx(values.mean().item(), abs=0.05)
    assert values[drawn].mean().item() > 5.5


@every_case
def test_the_log_of_a_sum_is_over_the_chosen_and_has_a_gradient_everywhere(case: Case) -> None:
    logits = (case.users @ case.items.T).requires_grad_()
    found = negatives.log_sum_exp(logits, case.negative)
    for row in range(len(case.users)):
        if columns := case.against(row):
            assert found[row].exp().item() == pytest.approx(
                sum(math.exp(float(logits.detach()[row, c])) for c in columns)
            )
        else:
            assert found[row].item() < -1e300
    (gradient,) = torch.autograd.grad(found.sum(), [logits])
    assert gradient.isfinite().all()
    assert not gradient[~case.negative].any() or not case.negative.any(1).all()
