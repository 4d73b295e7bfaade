"""What trials are compared by: the towers that a training kept, and the best that it had so far."""

from __future__ import annotations

from raycl.search import measured

POINTS = [
    {"epoch": 0, "step": 5, "recall": 0.2, "ndcg": 0.1, "users": 40},
    {"epoch": 0, "step": 10, "recall": 0.3, "ndcg": 0.05, "users": 40},
    {"epoch": 1, "step": 20, "recall": 0.25, "ndcg": 0.2, "users": 40},
    {"epoch": 2, "step": 30, "recall": 0.4, "ndcg": 0.15, "users": 40},
]


def test_a_curve_is_the_best_so_far_after_each_epoch() -> None:
    assert measured.curve(POINTS, "recall_at_20", last=False) == {1: 0.3, 2: 0.3, 3: 0.4}
    assert measured.curve(POINTS, "ndcg_at_20", last=False) == {1: 0.1, 2: 0.2, 3: 0.2}


def test_where_the_last_towers_are_kept_it_is_the_newest() -> None:
    assert measured.curve(POINTS, "recall_at_20", last=True) == {1: 0.3, 2: 0.25, 3: 0.4}
    assert measured.curve([], "recall_at_20", last=True) == {}
