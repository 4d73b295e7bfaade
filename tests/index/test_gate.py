"""Each floor of the gate, and the reason that it gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raycl.config import GateConfig
from raycl.index.gate import Evidence, decide

GOOD = Evidence(
    index_recall=0.98,
    num_queries=1_500,
    recall=0.3,
    popularity_recall=0.1,
    recall_at=20,
    part="test",
    num_items=3_000,
    num_vectors=3_000,
)
FLOORS = GateConfig(min_index_recall=0.95, min_recall=0.2, min_over_popularity=2.0)


def test_every_measure_above_its_floor_is_published_with_its_evidence() -> None:
    verdict = decide(GOOD, FLOORS)
    assert verdict.publish
    assert verdict.reason == (
        "index recall@100 0.9800 >= 0.95 on 1,500 queries; recall@20 0.3000 >= 0.2 on the test part;"
        " recall over popularity 3.0000 >= 2 times; indexed share of items 1.0000 >= 1 of 3,000"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"index_recall": 0.9}, "index recall@100 0.9000 < 0.95 on 1,500 queries"),
        ({"recall": 0.19, "popularity_recall": 0.01}, "recall@20 0.1900 < 0.2 on the test part"),
        ({"popularity_recall": 0.25}, "recall over popularity 1.2000 < 2 times"),
        ({"num_vectors": 2_900}, "indexed share of items 0.9667 < 1 of 3,000"),
    ],
)
def test_each_failing_check_refuses_with_its_own_reason(change: dict[str, Any], reason: str) -> None:
    verdict = decide(replace(GOOD, **change), FLOORS)
    assert not verdict.publish
    assert verdict.reason == reason


def test_the_reason_names_the_part_that_was_measured() -> None:
    assert "recall@20 0.3000 >= 0.2 on the val part" in decide(replace(GOOD, part="val"), FLOORS).reason


def test_all_that_fail_are_told_together() -> None:
    verdict = decide(replace(GOOD, index_recall=0.5, recall=0.1, num_vectors=0), FLOORS)
    assert not verdict.publish
    assert verdict.reason.count(";") == 3


def test_a_measure_on_its_floor_passes() -> None:
    assert decide(replace(GOOD, index_recall=0.95, recall=0.2, popularity_recall=0.1), FLOORS).publish


def test_the_smallest_shortfall_refuses() -> None:
    assert not decide(replace(GOOD, num_items=10_000_000, num_vectors=9_999_999), FLOORS).publish


def test_popularity_that_finds_nothing_is_beaten_by_anything() -> None:
    assert decide(replace(GOOD, popularity_recall=0.0), FLOORS).publish


def test_towers_that_find_nothing_do_not_beat_popularity_that_finds_nothing() -> None:
    verdict = decide(replace(GOOD, recall=0.0, popularity_recall=0.0), GateConfig(min_over_popularity=2.0))
    assert not verdict.publish
    assert verdict.reason == "recall over popularity 0.0000 < 2 times"


@pytest.mark.parametrize("change", [{"index_recall": float("nan")}, {"recall": float("nan")}])
def test_what_is_no_number_reaches_no_floor(change: dict[str, Any]) -> None:
    assert not decide(replace(GOOD, **change), FLOORS).publish


def test_an_empty_catalogue_is_not_published() -> None:
    assert not decide(replace(GOOD, num_items=0, num_vectors=0), FLOORS).publish
