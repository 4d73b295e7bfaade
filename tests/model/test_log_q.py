"""Sampling probabilities: counts, mixtures, and the sketch against a loop that remembers every occurrence."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.model import log_q
from raycl.model.log_q import Sketch

Batches = list[list[int]]
batches = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=12), min_size=1, max_size=12)


def filled(found: Batches, *, width: int = 8, num_hashes: int = 3, rate: float = 0.2) -> Sketch:
    sketch = Sketch(8, width, num_hashes, rate)
    for items in found:
        sketch.update(torch.tensor(items))
    return sketch


def shares(sketch: Sketch) -> list[float]:
    return sketch.log_q(torch.arange(8)).exp().tolist()


def naive(found: Batches, rate: float) -> list[float]:
    """1 / (mean gap), gaps averaged evenly until the newest would have less than its share by ``rate``.

    The open gap is spread over the occurrences that are remembered.
    """
    last, known = defaultdict[int, int](int), defaultdict[int, int](int)
    gap: dict[int, float] = {}
    draws = 0
    for items in found:
        draws += len(items)
        for item in set(items):
            count = items.count(item)
            newest = (draws - last[item]) / count
            share = max(1 - (1 - rate) ** count, count / (known[item] + count))
            gap[item] = gap.get(item, 0.0) * (1 - share) + newest * share
            known[item] += count
            last[item] = draws
    open_gap = {item: (draws - last[item]) / min(known[item], 1 / rate) for item in gap}
    return [1 / (gap[item] + open_gap[item]) if item in gap else 0.0 for item in range(8)]


@settings(deadline=None, max_examples=100, derandomize=True)
@given(batches, st.sampled_from([0.01, 0.3, 1.0]))
def test_a_sketch_of_a_small_vocabulary_is_that_of_a_loop(found: Batches, rate: float) -> None:
    assert shares(filled(found, rate=rate)) == pytest.approx(naive(found, rate), rel=1e-5)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(batches)
def test_while_nothing_fades_a_share_is_occurrences_over_draws(found: Batches) -> None:
    drawn = [item for items in found for item in items]
    expected = [drawn.count(item) / len(drawn) for item in range(8)]
    assert shares(filled(found, rate=1e-9)) == pytest.approx(expected, rel=1e-5)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(batches, st.integers(1, 7), st.integers(1, 4))
def test_a_small_sketch_never_takes_an_item_for_rarer_than_it_is_while_nothing_fades(
    found: Batches, width: int, num_hashes: int
) -> None:
    """A collision adds occurrences: with one counter alone, every share is 1."""
    small, exact = (shares(filled(found, width=size, num_hashes=num_hashes, rate=1e-9)) for size in (width, 8))
    assert all(one >= other * (1 - 1e-5) for one, other in zip(small, exact, strict=True))
    if width == 1:
        assert small == pytest.approx([1.0] * 8)


def test_more_hashes_find_shares_that_one_hash_confuses() -> None:
    generator = np.random.default_rng(0)
    found = [generator.integers(0, 1_000, 50) for _ in range(200)]
    errors = []
    for num_hashes in (1, 4):
        sketch = Sketch(1_000, 600, num_hashes, 0.01)
        for items in found:
            sketch.update(torch.from_numpy(items))
        errors.append((sketch.log_q(torch.arange(1_000)).exp() * 1_000 - 1).abs().mean().item())
    assert errors[1] < 0.7 * errors[0]


def test_the_stream_of_a_popularity_is_learned_and_followed_when_it_changes() -> None:
    generator = np.random.default_rng(1)
    popularity = np.arange(1, 51) / np.arange(1, 51).sum()
    sketch = Sketch(50, 64, 3, 0.02)
    for q in (popularity, popularity[::-1]):
        for _ in range(800):
            sketch.update(torch.from_numpy(generator.choice(50, 64, p=q)))
        found = sketch.log_q(torch.arange(50)).numpy()
        assert np.abs(found - np.log(q)).mean() < 0.12


def test_an_item_in_every_batch_is_told_from_one_that_is_there_twice_as_often() -> None:
    """Gaps in steps would be 1 for both."""
    found = shares(filled([[0, 1, 1, 2]] * 30 + [[0, 1, 1, 3]] * 30))
    assert found[:2] == pytest.approx([0.25, 0.5])


def test_what_never_came_has_no_probability() -> None:
    assert shares(filled([[1, 2]]))[0] == 0.0


def test_a_sketch_goes_on_from_its_saved_state() -> None:
    found = [[1, 2, 2], [3, 1, 0], [5, 5, 1], [2, 7, 7]]
    straight, first = filled(found, width=5), filled(found[:2], width=5)
    second = Sketch(8, 5, 3, 0.2)
    second.load_state_dict(first.state_dict())
    for items in found[2:]:
        second.update(torch.tensor(items))
    assert shares(second) == shares(straight)


def test_static_probabilities_are_shares_of_training_pairs() -> None:
    found = log_q.static(torch.tensor([3, 0, 1])).exp().tolist()
    assert found == pytest.approx([0.75, 0.25, 0.25])


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 2**32))
def test_a_mixture_is_what_both_samplers_bring_together(num_drawn: int, num_uniform: int, seed: int) -> None:
    q = np.random.default_rng(seed).dirichlet(np.ones(7))
    q[0] = 0.0  # never in a batch: the even draws alone bring it
    found = log_q.mixture(torch.from_numpy(q / q.sum()).log(), num_drawn, num_uniform, 7).exp().numpy()
    expected = (num_drawn * q / q.sum() + num_uniform / 7) / (num_drawn + num_uniform)
    assert found == pytest.approx(expected, rel=1e-9)
    assert math.fsum(found) == pytest.approx(1.0)
