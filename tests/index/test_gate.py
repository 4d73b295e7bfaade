"""Each floor of the gate, and the reason that it gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raycl.config import GateConfig
from raycl.index.gate import Evidence, Previous, decide, ndcg

GOOD = Evidence(
    index_recall=0.98,
    num_queries=1_500,
    recall=0.3,
    popularity_recall=0.1,
    recall_at=20,
    part="test",
    num_items=3_000,
    num_vectors=3_000,
    num_duplicates=30,
    ndcg=0.195,
    exact_ndcg=0.2,
    coverage=0.6,
    index_bytes=800_000,
    search_ms=1.5,
    previous=Previous("r1", 2_900, 0.7),
)
FLOORS = GateConfig(min_index_recall=0.95, min_recall=0.2, min_over_popularity=2.0)


def test_every_measure_within_its_bound_is_published_with_its_evidence() -> None:
    verdict = decide(GOOD, FLOORS)
    assert verdict.publish
    assert verdict.reason == (
        "index recall@100 0.9800 >= 0.95 on 1,500 queries; loss of ndcg@100 0.0250 <= 0.05 of the exact search's;"
        " recall@20 0.3000 >= 0.2 on the test part; recall over popularity 3.0000 >= 2 times;"
        " items in an answer 0.6000 >= 0 of 3,000; indexed share of items 1.0000 >= 1 of 3,000;"
        " share of null vectors 0.0000 <= 0 of 3,000; share of vectors that are not finite 0.0000 <= 0 of 3,000;"
        " share of duplicate vectors 0.0100 <= 0.5 of 3,000; loss of items 0.0000 <= 0.2 of the 2,900 in release r1;"
        " agreement 0.7000 >= 0 with the answers of release r1"
    )
    assert "; ".join(map(str, verdict.checks)) == verdict.reason


def test_without_a_release_before_there_is_nothing_to_agree_with() -> None:
    verdict = decide(replace(GOOD, previous=None), FLOORS)
    assert verdict.publish
    assert "release" not in verdict.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"index_recall": 0.9}, "index recall@100 0.9000 < 0.95 on 1,500 queries"),
        ({"recall": 0.19, "popularity_recall": 0.01}, "recall@20 0.1900 < 0.2 on the test part"),
        ({"popularity_recall": 0.25}, "recall over popularity 1.2000 < 2 times"),
        ({"num_vectors": 2_900}, "indexed share of items 0.9667 < 1 of 3,000"),
        ({"ndcg": 0.18}, "loss of ndcg@100 0.1000 > 0.05 of the exact search's"),
        ({"num_null": 30, "num_vectors": 2_970}, "share of null vectors 0.0100 > 0 of 3,000"),
        (
            {"num_not_finite": 30, "num_vectors": 2_970},
            "share of vectors that are not finite 0.0100 > 0 of 3,000",
        ),
        ({"num_duplicates": 2_000}, "share of duplicate vectors 0.6667 > 0.5 of 3,000"),
        (
            {"previous": Previous("r1", 4_000, 0.7)},
            "loss of items 0.2500 > 0.2 of the 4,000 in release r1",
        ),
    ],
)
def test_each_failing_check_refuses_with_its_own_reason(change: dict[str, Any], reason: str) -> None:
    verdict = decide(replace(GOOD, **change), FLOORS)
    assert not verdict.publish
    assert verdict.reason == reason


def test_the_reason_names_the_part_that_was_measured() -> None:
    assert "recall@20 0.3000 >= 0.2 on the val part" in decide(replace(GOOD, part="val"), FLOORS).reason


def test_all_that_fail_are_told_together() -> None:
    verdict = decide(replace(GOOD, index_recall=0.5, recall=0.1, num_vectors=2_900), FLOORS)
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


@pytest.mark.parametrize("change", [{"index_recall": float("nan")}, {"recall": float("nan")}, {"ndcg": float("nan")}])
def test_what_is_no_number_reaches_no_floor(change: dict[str, Any]) -> None:
    assert not decide(replace(GOOD, **change), FLOORS).publish


def test_an_empty_catalogue_is_not_published() -> None:
    assert not decide(replace(GOOD, num_items=0, num_vectors=0), FLOORS).publish


@pytest.mark.parametrize(
    ("setting", "passing", "failing", "reason"),
    [
        ("min_coverage", 0.6, 0.61, "items in an answer 0.6000 < 0.61 of 3,000"),
        ("max_search_ms", 1.5, 1.4, "search of a query 1.5000 > 1.4 ms"),
        ("max_index_bytes", 800_000, 799_999, "size 800,000 > 799999 bytes"),
        ("min_agreement", 0.7, 0.71, "agreement 0.7000 < 0.71 with the answers of release r1"),
        ("max_item_gain", 0.04, 0.03, "gain of items 0.0345 > 0.03 of the 2,900 in release r1"),
        ("max_duplicate_share", 0.01, 0.009, "share of duplicate vectors 0.0100 > 0.009 of 3,000"),
    ],
)
def test_each_bound_that_is_asked_for_decides(setting: str, passing: float, failing: float, reason: str) -> None:
    tree = FLOORS.model_dump()
    assert decide(GOOD, GateConfig(**{**tree, setting: passing})).publish
    assert decide(GOOD, GateConfig(**{**tree, setting: failing})).reason == reason


def test_vectors_that_may_be_lost_do_not_count_as_missing() -> None:
    floors = GateConfig(max_null_share=0.1, max_not_finite_share=0.1)
    assert decide(replace(GOOD, num_null=100, num_not_finite=200, num_vectors=2_700), floors).publish
    assert not decide(replace(GOOD, num_null=100, num_not_finite=200, num_vectors=2_699), floors).publish


def test_an_exact_search_that_finds_no_target_cannot_be_lost_to() -> None:
    assert decide(replace(GOOD, ndcg=0.0, exact_ndcg=0.0), FLOORS).publish


def test_ndcg_of_one_target_is_the_discount_of_its_rank() -> None:
    found = np.array([[5, 6, 7], [5, 6, 7], [5, 6, 7], [-1, -1, -1]])
    assert ndcg(found, np.array([5, 7, 8, 9])).tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0])
