"""Augmented views against what each operation may do to a history, and correlated items against counting by hand."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.data.packed import Rows, Sequences
from raycl.data.views import Augmentation, correlated, two_views, view
from tests.data.builders import many_cases, part_table
from tests.data.reference import Packed

NONE: dict[str, Any] = dict.fromkeys(("crop", "mask", "reorder", "substitute"))
HISTORIES = st.lists(st.lists(st.integers(0, 20), max_size=7), min_size=1, max_size=6)
SHARES = st.floats(0.05, 0.95)


def padded(histories: list[list[int]], width: int = 8) -> Rows:
    return np.array([one + [-1] * (width - len(one)) for one in histories], dtype=np.int32)


def plain(rows: Rows) -> list[list[int]]:
    """Each history without its filling, which must stand at the end."""
    found = []
    for row in rows.tolist():
        items = [item for item in row if item >= 0]
        assert row == items + [-1] * (len(row) - len(items))
        found.append(items)
    return found


def changed(histories: list[list[int]], seed: int, neighbours: Rows | None = None, **shares: float) -> list[list[int]]:
    how = Augmentation(**(NONE | shares))
    return plain(view(padded(histories), how, np.random.default_rng(seed), neighbours))


def touched(size: int, share: float) -> int:
    return max(1, math.floor(share * size))


@many_cases
@given(HISTORIES, SHARES, st.integers(0, 99))
def test_a_crop_is_a_run_of_the_share(histories: list[list[int]], share: float, seed: int) -> None:
    for before, after in zip(histories, changed(histories, seed, crop=share), strict=True):
        length = touched(len(before), share) if before else 0
        assert len(after) == length
        assert after in [before[start : start + length] for start in range(len(before) - length + 1)]


@many_cases
@given(HISTORIES, SHARES, st.integers(0, 99))
def test_a_mask_leaves_out_the_share_and_keeps_the_order(histories: list[list[int]], share: float, seed: int) -> None:
    numbered = [list(range(len(one))) for one in histories]
    for before, after in zip(numbered, changed(numbered, seed, mask=share), strict=True):
        gone = touched(len(before), share) if len(before) > 1 else 0
        assert len(after) == len(before) - gone
        assert after == sorted(after)


@many_cases
@given(HISTORIES, SHARES, st.integers(0, 99))
def test_a_reordering_moves_items_within_a_run_of_the_share(
    histories: list[list[int]], share: float, seed: int
) -> None:
    numbered = [list(range(len(one))) for one in histories]
    for before, after in zip(numbered, changed(numbered, seed, reorder=share), strict=True):
        assert sorted(after) == before
        moved = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        assert not moved or moved[-1] - moved[0] < touched(len(before), share)


@many_cases
@given(HISTORIES, SHARES, st.integers(0, 99))
def test_a_substitution_puts_neighbours_in_the_place_of_the_share(
    histories: list[list[int]], share: float, seed: int
) -> None:
    neighbours = np.arange(100, 121, dtype=np.int32)
    neighbours[7] = -1
    for before, after in zip(histories, changed(histories, seed, neighbours, substitute=share), strict=True):
        assert len(after) == len(before)
        assert all(new in (old, old + 100) for old, new in zip(before, after, strict=True))
        assert 107 not in after
        if 7 not in before and before:
            assert sum(new >= 100 for new in after) == touched(len(before), share)


def test_every_place_of_a_run_is_drawn_and_every_order() -> None:
    crops = Counter(tuple(one) for one in changed([[1, 2, 3]] * 3_000, 0, crop=0.67))
    assert set(crops) == {(1, 2), (2, 3)}
    assert min(crops.values()) > 1_300
    orders = Counter(tuple(one) for one in changed([[1, 2, 3, 4]] * 6_000, 0, reorder=0.75))
    assert len(orders) == 10  # the six orders of 1 2 3 and of 2 3 4, two of which are in both
    masks = Counter(tuple(one) for one in changed([[1, 2, 3]] * 3_000, 0, mask=0.5))
    assert set(masks) == {(1, 2), (1, 3), (2, 3)}
    assert min(masks.values()) > 850


def test_two_views_are_drawn_apart_and_by_the_generator_alone() -> None:
    history = padded([list(range(7))] * 50)
    how = Augmentation(substitute=0.3)
    neighbours = np.arange(20, 40, dtype=np.int32)
    first, second = two_views(history, how, np.random.default_rng(1), neighbours)
    assert (first != second).any(1).mean() > 0.8
    again, _ = two_views(history, how, np.random.default_rng(1), neighbours)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(history, padded([list(range(7))] * 50))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Augmentation(None, None, None, None), "no operation has a share"),
        (lambda: Augmentation(crop=1.0), "crop=1.0 is no share"),
        (lambda: view(padded([[1]]), Augmentation(substitute=0.5), np.random.default_rng(0)), "needs neighbours"),
    ],
)
def test_what_makes_no_view_is_refused(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


@many_cases
@given(st.lists(st.lists(st.integers(0, 5), max_size=9), max_size=5))
def test_correlated_items_are_those_that_stand_side_by_side_most(users: list[list[int]]) -> None:
    together = Counter(pair for user in users for a, b in pairwise(user) if a != b for pair in ((a, b), (b, a)))
    totals = Counter[int]()
    for (item, _), count in together.items():
        totals[item] += count
    found = correlated([packed(users)], 6)
    assert found.tolist() == correlated([packed(users[:1]), packed(users[1:])], 6).tolist()
    for item in range(6):
        cosines = {
            other: count / math.sqrt(totals[item] * totals[other])
            for (one, other), count in together.items()
            if one == item
        }
        if not cosines:
            assert found[item] == -1
        else:
            assert cosines[int(found[item])] == pytest.approx(max(cosines.values()))


def packed(users: list[list[int]]) -> Sequences:
    """Users' items end to end, all of them targets."""
    rows = [
        Packed(user, -1, 0, tuple(one), (1.0,) * len(one), tuple(range(len(one)))) for user, one in enumerate(users)
    ]
    return Sequences.from_table(part_table(rows))
