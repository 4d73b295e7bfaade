"""The bank of item vectors against a list."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raycl.model.bank import Bank


def pushed(bank: Bank, step: int, rows: int) -> list[tuple[float, int, float]]:
    """Push one batch; its rows as the list keeps them."""
    items = torch.arange(step * 100, step * 100 + rows)
    bank.push(step, items[:, None] * torch.ones(1, 2), items, -items.float())
    return [(float(item), int(item), -float(item)) for item in items]


def held(bank: Bank, step: int, rows: int) -> set[tuple[float, int, float]]:
    vectors, items, log_q = bank.held(step, rows)
    return {(float(vector[0]), int(item), float(q)) for vector, item, q in zip(vectors, items, log_q, strict=True)}


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 4), st.integers(0, 12))
def test_the_newest_are_kept_from_the_first_step_on(size: int, rows: int, after: int, steps: int) -> None:
    bank = Bank(size, 2, after)
    kept: list[tuple[float, int, float]] = []
    for step in range(steps):
        assert held(bank, step, rows) == set(kept[-size:])
        found = pushed(bank, step, rows)
        kept += found if step >= after else []
    vectors, items, _ = bank.held(steps, rows)
    assert len(items) == len(vectors) == min(size, len(kept))


def test_a_bank_goes_on_from_its_saved_state() -> None:
    straight, first, second = Bank(7, 2, 1), Bank(7, 2, 1), Bank(7, 2, 1)
    for step in range(6):
        pushed(straight, step, 3)
        pushed(first if step < 4 else second, step, 3)
        if step == 3:
            second.load_state_dict(first.state_dict())
    assert held(second, 6, 3) == held(straight, 6, 3)


def test_what_is_kept_has_no_gradient_and_is_no_view_of_the_batch() -> None:
    bank = Bank(3, 2, 0)
    vectors: Tensor = torch.ones(3, 2, requires_grad=True)
    bank.push(0, vectors, torch.arange(3), torch.zeros(3))
    with torch.no_grad():
        vectors += 1
    kept, _, _ = bank.held(1, 3)
    assert not kept.requires_grad
    assert kept.eq(1).all()
