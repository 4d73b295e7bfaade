"""Diversity against naive implementations that recompute everything at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.serving import rerank
from raycl.serving.rerank import Caps, Scores, Vectors, Wish
from tests.index.builders import clustered, unit_vectors


def naive(k: int, count: int, gain: Callable[[list[int], int], float]) -> list[int]:
    """Greedily the candidate with the largest gain, the earliest of those that tie."""
    chosen: list[int] = []
    while len(chosen) < min(k, count):
        rest = [place for place in range(count) if place not in chosen]
        chosen.append(max(rest, key=lambda place: (gain(chosen, place), -place)))
    return chosen


def mmr(scores: Scores, vectors: Vectors, strength: float, k: int) -> list[int]:
    def gain(chosen: list[int], place: int) -> float:
        likest = max((float(vectors[place] @ vectors[one]) for one in chosen), default=0.0)
        return (1.0 - strength) * float(scores[place]) - strength * likest

    return naive(k, len(scores), gain)


def dpp(scores: Scores, vectors: Vectors, strength: float, k: int) -> list[int]:
    """The determinant of the whole kernel with its qualities, of every set that could follow."""
    quality = np.exp((1.0 - strength) / (2.0 * strength) * scores.astype(np.float64))
    wide = vectors.astype(np.float64)
    kernel = quality[:, None] * (1.0 + wide @ wide.T) / 2.0 * quality
    return naive(
        k,
        len(scores),
        lambda chosen, place: float(np.linalg.slogdet(kernel[np.ix_([*chosen, place], [*chosen, place])])[1]),
    )


@pytest.mark.parametrize(("method", "truth"), [("mmr", mmr), ("dpp", dpp)])
@given(seed=st.integers(0, 10_000), strength=st.sampled_from([0.1, 0.5, 0.9]), k=st.integers(1, 12))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_method_chooses_what_its_definition_says(
    method: Literal["mmr", "dpp"],
    truth: Callable[[Scores, Vectors, float, int], list[int]],
    seed: int,
    strength: float,
    k: int,
) -> None:
    vectors = clustered(25, 16, 5, seed)
    scores = np.sort(vectors @ unit_vectors(1, 16, seed + 1)[0])[::-1].copy()
    found = rerank.order(scores, vectors, k, Wish(method, strength), Caps([]))
    assert found.places == truth(scores, vectors, strength, k)
    assert not found.out_of_time


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_without_strength_it_is_the_order_of_scores(method: Literal["mmr", "dpp"]) -> None:
    scores = np.array([0.2, 0.9, 0.9, 0.1], dtype=np.float32)
    assert rerank.order(scores, unit_vectors(4, 3), 4, Wish(method, 0.0), Caps([])).places == [1, 2, 0, 3]


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_more_strength_brings_more_clusters(method: Literal["mmr", "dpp"]) -> None:
    """Forty items in eight clusters: the nearest five lie together, diverse ones do not."""
    vectors = np.repeat(unit_vectors(8, 16), 5, axis=0)
    scores = (vectors @ vectors[0]).astype(np.float32)
    clusters = [
        len({place // 5 for place in rerank.order(scores, vectors, 5, Wish(method, strength), Caps([])).places})
        for strength in (0.0, 0.95)
    ]
    assert clusters == [1, 5]


def test_more_items_than_dimensions_are_filled_up_by_score() -> None:
    """A determinantal process of vectors in 3 dimensions has nothing to say after 4 of them."""
    scores, vectors = np.linspace(1.0, 0.0, 20).astype(np.float32), unit_vectors(20, 3)
    places = rerank.order(scores, vectors, 20, Wish("dpp", 0.5), Caps([])).places
    assert sorted(places) == list(range(20))
    assert places[4:] == sorted(places[4:])


@given(
    codes=st.lists(st.integers(-1, 3), min_size=1, max_size=20),
    most=st.integers(1, 3),
    k=st.integers(1, 20),
    seed=st.integers(0, 5),
    explore=st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_caps_hold_and_cost_no_place_that_another_item_can_take(
    codes: list[int], most: int, k: int, seed: int, explore: float
) -> None:
    scores = np.linspace(1.0, 0.0, len(codes)).astype(np.float32)
    capped = Caps([(np.array(codes, dtype=np.int32), most)])
    places = rerank.order(scores, None, k, Wish(explore=explore, seed=seed), capped).places
    taken = [codes[place] for place in places]
    assert all(taken.count(code) <= most for code in set(taken) if code >= 0)
    possible = sum(codes.count(code) if code < 0 else min(codes.count(code), most) for code in set(codes))
    assert len(places) == len(set(places)) == min(k, possible)
    if not explore:
        expected: list[int] = []
        for place, code in enumerate(codes):
            if len(expected) < k and (code < 0 or [codes[one] for one in expected].count(code) < most):
                expected.append(place)
        assert places == expected


def test_a_share_for_exploration_is_drawn_by_the_seed_and_leaves_the_best_first() -> None:
    scores = np.linspace(1.0, 0.0, 50).astype(np.float32)
    found = [rerank.order(scores, None, 10, Wish(explore=0.3, seed=seed), Caps([])) for seed in (1, 1, 2)]
    for one in found:
        assert len(one.places) == len(set(one.places)) == 10
        assert len(one.explored) == 3
        assert [place for place in one.places if place not in one.explored] == list(range(7))
        assert one.places[0] == 0
    assert found[0] == found[1] != found[2]


def test_every_item_that_is_left_may_be_explored() -> None:
    scores = np.linspace(1.0, 0.0, 12).astype(np.float32)
    seen = {
        place
        for seed in range(200)
        for place in rerank.order(scores, None, 4, Wish(explore=0.5, seed=seed), Caps([])).explored
    }
    assert seen == set(range(2, 12))


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_when_time_runs_out_the_rest_is_by_score(method: Literal["mmr", "dpp"]) -> None:
    vectors = clustered(30, 16, 5)
    scores = np.sort(vectors @ unit_vectors(1, 16, 1)[0])[::-1].copy()
    steps = iter([True, True, True])
    whole = rerank.order(scores, vectors, 10, Wish(method, 0.8), Caps([])).places
    found = rerank.order(scores, vectors, 10, Wish(method, 0.8), Caps([]), lambda: next(steps, False))
    assert found.out_of_time
    assert found.places[:3] == whole[:3]
    assert found.places[3:] == [place for place in range(30) if place not in whole[:3]][:7]


def test_a_discount_moves_popular_items_down() -> None:
    scores, counts = np.array([0.9, 0.8, 0.7], dtype=np.float32), np.array([99, 9, 0])
    assert rerank.discounted(scores, counts, 0.4, 99).tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert rerank.discounted(scores, counts, 0.0, 99).tolist() == scores.tolist()
    assert rerank.discounted(scores, np.zeros(3, np.int64), 0.4, 0).tolist() == scores.tolist()


def test_nothing_to_choose_from_is_nothing() -> None:
    none = np.zeros(0, dtype=np.float32)
    assert rerank.order(none, np.zeros((0, 3), np.float32), 5, Wish("dpp", 0.5, 0.5), Caps([])).places == []
