"""The learning rate, at steps worked out by hand."""

from __future__ import annotations

import math

import pytest

from raycl.config import TrainConfig
from raycl.training.curve import Point
from raycl.training.schedule import learning_rate


def config(schedule: object = "cosine", warmup_share: float = 0.0, peak: float = 1.0) -> TrainConfig:
    return TrainConfig.model_validate({"learning_rate": peak, "warmup_share": warmup_share, "schedule": schedule})


def rates(num_steps: int, warmup_share: float, schedule: object = "cosine", peak: float = 1.0) -> list[float]:
    train = config(schedule, warmup_share, peak)
    return [learning_rate(train, step, num_steps) for step in range(num_steps)]


def curve(*recalls: float) -> list[Point]:
    return [Point(epoch, 10 * epoch, recall, recall, 5) for epoch, recall in enumerate(recalls)]


def test_it_rises_linearly_to_the_peak_and_falls_as_a_half_cosine() -> None:
    found = rates(10, 0.2, peak=3.0)
    assert found[:3] == pytest.approx([1.5, 3.0, 3.0])
    assert found[6] == pytest.approx(3.0 * (0.01 + 0.99 / 2))
    assert found[9] == pytest.approx(3.0 * (0.01 + 0.99 * (1 + math.cos(math.pi * 7 / 8)) / 2))


def test_a_line_falls_by_the_same_in_every_step() -> None:
    falling = [2 * (0.01 + 0.99 * share) for share in (1.0, 0.75, 0.5, 0.25)]
    assert rates(6, 0.2, "linear", peak=2.0) == pytest.approx([1.0, 2.0, *falling])


def test_a_constant_rate_stays_at_the_peak_after_the_warm_up() -> None:
    assert rates(5, 0.4, "constant", peak=2.0) == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0])


def test_a_plateau_lowers_the_rate_by_its_factor_and_a_gain_does_not_raise_it_again() -> None:
    train = config({"kind": "plateau", "factor": 0.1, "patience": 2}, peak=2.0)
    recalls = (0.1, 0.2, 0.2, 0.15, 0.3, 0.3, 0.2, 0.1, 0.1)
    found = [learning_rate(train, 5, 10, curve(*recalls[:count])) for count in range(len(recalls) + 1)]
    assert found == pytest.approx([2.0, 2.0, 2.0, 2.0, 0.2, 0.2, 0.2, 0.02, 0.02, 0.02])


def test_only_a_plateau_looks_at_validations() -> None:
    falls = [0.3, 0.2, 0.1, 0.1, 0.1]
    for schedule in ("cosine", "linear", "constant"):
        train = config(schedule)
        assert learning_rate(train, 5, 10, curve(*falls)) == learning_rate(train, 5, 10)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 1_000])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "plateau"])
def test_it_rises_then_never_rises_and_stays_between_one_percent_and_the_peak(
    num_steps: int, share: float, schedule: str
) -> None:
    found = rates(num_steps, share, schedule)
    warmup = math.ceil(num_steps * share)
    assert found[:warmup] == sorted(found[:warmup])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
    assert all(0.01 <= rate <= 1.0 for rate in found[warmup:])
    assert max(found) == 1.0


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_at_and_after_the_last_step_it_is_one_percent(schedule: str) -> None:
    train = config(schedule, 0.1, 2.0)
    assert [learning_rate(train, step, 100) for step in (100, 200)] == pytest.approx([0.02, 0.02])


def test_no_number_of_plateaus_goes_under_one_percent() -> None:
    train = config({"kind": "plateau", "factor": 0.5, "patience": 1}, peak=2.0)
    assert learning_rate(train, 5, 10, curve(*[0.5] * 50)) == pytest.approx(0.02)
