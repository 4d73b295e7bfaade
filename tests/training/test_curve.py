"""What a validation curve decides, on curves written by hand."""

from __future__ import annotations

import pytest

from raycl.config_validation import EarlyStop
from raycl.training.curve import Point, best, num_plateaus, reason_to_stop


def curve(*recalls: float) -> list[Point]:
    return [Point(epoch, 10 * (epoch + 1), recall, recall / 2, 5) for epoch, recall in enumerate(recalls)]


def test_the_best_is_that_of_the_best_recall_then_ndcg_then_the_latest() -> None:
    assert best(curve(0.1, 0.3, 0.2)) == curve(0.1, 0.3)[1]
    same = [
        Point(0, 10, 0.3, 0.2, 5),
        Point(1, 20, 0.3, 0.25, 5),
        Point(2, 30, 0.3, 0.25, 5),
        Point(3, 40, 0.2, 0.9, 5),
    ]
    assert best(same) == same[2]
    assert best([]) is None


@pytest.mark.parametrize(
    ("recalls", "patience", "min_gain", "expected"),
    [
        ((), 1, 0.0, 0),
        ((0.0,), 1, 0.0, 0),
        ((0.1, 0.2, 0.3), 1, 0.0, 0),
        ((0.1, 0.1), 1, 0.0, 1),
        ((0.1, 0.1), 2, 0.0, 0),
        ((0.2, 0.1, 0.2), 2, 0.0, 1),
        ((0.2, 0.1, 0.3, 0.1), 2, 0.0, 0),
        ((0.2, 0.1, 0.1, 0.1, 0.1, 0.1), 2, 0.0, 2),
        ((0.2, 0.21, 0.22, 0.23), 2, 0.05, 1),
        ((0.2, 0.23, 0.26, 0.27), 2, 0.05, 0),
    ],
)
def test_a_plateau_is_so_many_points_without_a_gain(
    recalls: tuple[float, ...], patience: int, min_gain: float, expected: int
) -> None:
    assert num_plateaus(curve(*recalls), patience, min_gain) == expected


def test_training_stops_at_the_first_plateau_and_says_why() -> None:
    rule = EarlyStop(patience=2, min_gain=0.01)
    falls = (0.1, 0.3, 0.305, 0.2)
    assert [reason_to_stop(curve(*falls[:count]), rule) for count in range(4)] == [None] * 4
    assert reason_to_stop(curve(*falls), rule) == (
        "no gain of more than 0.01 in 2 validations after step 20; the best recall is 0.3050, at step 30"
    )
    assert reason_to_stop(curve(*falls), None) is None
