"""What the index benchmark says of two curves: recall at a speed that was reached, between measured points."""

from __future__ import annotations

import pytest

from benchmarks.index.job import recall_at


def curve(*points: tuple[float, float]) -> list[dict[str, float]]:
    return [{"qps": qps, "recall": recall} for qps, recall in points]


@pytest.mark.parametrize(
    ("qps", "recall"), [(1_000.0, 0.9), (10_000.0, 0.5), (3_162.277, 0.7), (10.0, 0.9), (10_001.0, 0.0)]
)
def test_recall_is_read_between_the_points_and_is_none_beyond_the_fastest(qps: float, recall: float) -> None:
    assert recall_at(curve((10_000.0, 0.5), (1_000.0, 0.9)), qps) == pytest.approx(recall, abs=1e-4)


def test_a_point_that_another_one_beats_in_both_does_not_count() -> None:
    points = curve((8_000.0, 0.4), (9_000.0, 0.6), (1_000.0, 0.9))
    assert recall_at(points, 8_000.0) > 0.6
    assert recall_at(points, 9_000.0) == pytest.approx(0.6)
