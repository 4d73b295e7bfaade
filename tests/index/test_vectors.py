"""Vectors that cannot be searched, and vectors that are equal."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.index import vectors
from tests.index.builders import unit_vectors


def test_null_and_infinite_vectors_are_counted_where_they_are_active() -> None:
    given_ones = unit_vectors(8, 4)
    given_ones[1], given_ones[2] = 0.0, -0.0
    given_ones[3, 2], given_ones[4, 0], given_ones[5] = np.nan, np.inf, np.nan
    active = np.array([1, 1, 0, 1, 1, 0, 1, 0], dtype=bool)
    checked = vectors.check(given_ones, active)
    assert checked.usable.tolist() == [True, False, False, False, False, False, True, False]
    assert (checked.num_null, checked.num_not_finite) == (1, 2)


def test_equal_vectors_have_equal_fingerprints_and_others_do_not() -> None:
    drawn = unit_vectors(5_000, 8)
    drawn[17] = drawn[4_000]
    drawn[30, 2], drawn[31] = 0.0, drawn[30]
    drawn[31, 2] = -0.0
    prints = vectors.fingerprints(drawn)
    assert prints[17] == prints[4_000]
    assert prints[30] == prints[31]
    assert len(np.unique(prints)) == 4_998
    assert vectors.num_repeated(prints) == 2


def test_the_order_of_numbers_and_small_changes_make_another_fingerprint() -> None:
    base = np.ones((1, 4), dtype=np.float32)
    others = [base]
    for place in range(4):
        for step in (np.nextafter(np.float32(1), np.float32(2)), np.float32(-1)):
            changed = base.copy()
            changed[0, place] = step
            others.append(changed)
    assert len(np.unique(vectors.fingerprints(np.concatenate(others)))) == 9


@given(seed=st.integers(0, 1_000), size=st.integers(1, 60), num_parts=st.integers(1, 5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_repeats_of_parts_by_fingerprint_add_up_to_those_of_the_whole(seed: int, size: int, num_parts: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 2, (size, 4)).astype(np.float32)
    prints = vectors.fingerprints(drawn)
    apart = sum(vectors.num_repeated(prints[prints % np.uint64(num_parts) == part]) for part in range(num_parts))
    assert apart == size - len(np.unique(drawn, axis=0))
