"""The learning rate, at steps worked out by hand."""

from __future__ import annotations

import math

import pytest

from raycl.training.schedule import learning_rate


def rates(num_steps: int, warmup_share: float, peak: float = 1.0) -> list[float]:
    return [learning_rate(step, num_steps, peak, warmup_share) for step in range(num_steps)]


def test_it_rises_linearly_to_the_peak_and_falls_as_a_half_cosine() -> None:
    found = rates(10, 0.2, peak=3.0)
    assert found[:3] == [1.5, 3.0, 3.0]
    assert found[6] == pytest.approx(3.0 * (0.01 + 0.99 / 2))
    assert found[9] == pytest.approx(3.0 * (0.01 + 0.99 * (1 + math.cos(math.pi * 7 / 8)) / 2))


@pytest.mark.parametrize("num_steps", [1, 2, 7, 1_000])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_it_rises_then_falls_and_stays_between_one_percent_and_the_peak(num_steps: int, share: float) -> None:
    found = rates(num_steps, share)
    warmup = math.ceil(num_steps * share)
    assert found[:warmup] == sorted(found[:warmup])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
    assert all(0.01 <= rate <= 1.0 for rate in found[warmup:])
    assert max(found) == 1.0


def test_at_and_after_the_last_step_it_is_one_percent() -> None:
    assert [learning_rate(step, 100, 2.0, 0.1) for step in (100, 200)] == pytest.approx([0.02, 0.02])
