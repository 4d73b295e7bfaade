"""Histograms of sizes against sorted lists in plain Python."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.data.histogram import Histogram
from tests.data.builders import few_cases

SMALL = st.lists(st.integers(0, 63), max_size=60)
ANY = st.lists(st.one_of(st.integers(0, 63), st.integers(0, 5_000), st.integers(0, 2**50)), max_size=60)


def of(sizes: Sequence[int]) -> Histogram:
    return Histogram.of(np.array(sizes, dtype=np.int64))


def gini(sizes: Sequence[int]) -> float:
    """The mean difference of all pairs, over twice the mean."""
    number, total = len(sizes), sum(sizes)
    return sum(abs(a - b) for a in sizes for b in sizes) / (2 * number * total) if total else 0.0


def head(sizes: Sequence[int], percent: int) -> float:
    number = math.ceil(percent * len(sizes) / 100)
    return sum(sorted(sizes, reverse=True)[:number]) / sum(sizes) if sum(sizes) else 0.0


@few_cases
@given(SMALL)
def test_of_small_sizes_all_is_exact(sizes: list[int]) -> None:
    found = of(sizes)
    assert (found.number, found.total, found.most) == (len(sizes), sum(sizes), max(sizes, default=0))
    assert found.gini() == pytest.approx(gini(sizes), abs=1e-12)
    for percent in (1, 7, 10, 50, 100):
        assert found.head_share(percent / 100) == pytest.approx(head(sizes, percent))
        if sizes:
            assert found.quantile(percent / 100) == sorted(sizes)[math.ceil(percent * len(sizes) / 100) - 1]


@few_cases
@given(ANY)
def test_of_large_sizes_all_is_within_a_32nd(sizes: list[int]) -> None:
    found = of(sizes)
    assert (found.number, found.total, found.most) == (len(sizes), sum(sizes), max(sizes, default=0))
    assert found.gini() == pytest.approx(gini(sizes), abs=1 / 32)
    assert found.head_share(0.1) == pytest.approx(head(sizes, 10), rel=1 / 32)
    for percent in (1, 50, 90) if sizes else ():
        truth = sorted(sizes)[math.ceil(percent * len(sizes) / 100) - 1]
        assert found.quantile(percent / 100) == pytest.approx(truth, rel=1 / 32)


@few_cases
@given(ANY, st.integers(0, 60), st.integers(0, 60), st.permutations(range(3)))
def test_parts_in_any_order_make_the_whole(sizes: list[int], one: int, two: int, order: list[int]) -> None:
    first, second = sorted((one, two))
    parts = [of(sizes[:first]), of(sizes[first:second]), of(sizes[second:])]
    merged = Histogram.merged([parts[place] for place in order])
    twice = Histogram.merged([Histogram.merged([parts[2], parts[0]]), parts[1]])
    assert merged.to_json() == of(sizes).to_json() == twice.to_json()


@few_cases
@given(ANY)
def test_octaves_are_powers_of_two(sizes: list[int]) -> None:
    found = of(sizes).octaves()
    assert sum(octave.number for octave in found) == len(sizes)
    for octave in found:
        inside = [size for size in sizes if octave.first <= size <= octave.last]
        assert (octave.number, octave.total) == (len(inside), sum(inside))
        assert (octave.first, octave.last) == (0, 0) or octave.first.bit_count() == 1
        assert octave.last == max(2 * octave.first - 1, 0)
    assert all(octave.first == before.last + 1 for before, octave in pairwise(found))
    assert not found or (found[0].number and found[-1].number)


@few_cases
@given(ANY)
def test_the_curve_counts_who_reaches_a_size(sizes: list[int]) -> None:
    for size, reached in zip(*(column.tolist() for column in of(sizes).at_least()), strict=True):
        assert reached == sum(other >= size for other in sizes)


@few_cases
@given(ANY)
def test_plain_values_come_back(sizes: list[int]) -> None:
    found = of(sizes)
    again = Histogram.from_json(json.loads(json.dumps(found.to_json())))
    assert again.to_json() == found.to_json()
    assert again.octaves() == found.octaves()


def test_it_stays_small_whatever_the_sizes() -> None:
    sizes = np.random.default_rng(1).integers(0, 2**52, 200_000) >> np.random.default_rng(2).integers(0, 52, 200_000)
    found = Histogram.of(sizes)
    assert found.total == sizes.sum()
    assert len(found.to_json()["bins"]) <= 64 + 32 * 46
