"""What settings are judged by: held-out events, ranked beside a dense loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.evaluation import baseline_choice
from raycl.evaluation.baseline_choice import questions


@given(st.integers(0, 2**31))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_each_user_of_two_items_is_asked_for_the_last_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    user, item, time_ms = (generator.integers(0, most, 60) for most in (15, 9, 30))
    found = questions(user, item, time_ms, 9, seed)
    known = found.table.toarray() > 0
    whole = known.copy()
    whole[found.user, found.item] = True
    expected = np.zeros((15, 9), dtype=bool)
    expected[user, item] = True
    assert sorted(map(tuple, whole)) == sorted(map(tuple, expected[: user.max() + 1]))
    assert not known[found.user, found.item].any()
    assert len(found.user) == (expected.sum(1) > 1).sum()
    for row, asked in zip(found.user, found.item, strict=True):
        same = [one for one in range(15) if (expected[one] == whole[row]).all()]
        assert any(asked in item[(user == one) & (time_ms == time_ms[user == one].max())] for one in same)


def test_no_more_users_are_drawn_than_have_so_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline_choice, "MOST_EVENTS", 50)
    user, item = np.repeat(np.arange(100), 10), np.tile(np.arange(10), 100)
    found = questions(user, item, np.zeros(1000, np.int64), 10, 3)
    assert found.table.shape == (5, 10)
    assert found.user.tolist() == [0, 1, 2, 3, 4]


@given(st.integers(0, 2**31))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_quality_is_that_of_a_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = int(generator.integers(1, 200))
    user, item, time_ms = (generator.integers(0, most, size) for most in (90, 7, 5))
    found = questions(user, item, time_ms, 7, seed)
    scores = generator.integers(0, 4, (7, 7)).astype(np.float32)
    gained = []
    for row, asked in zip(found.user, found.item, strict=True):
        met = found.table.toarray()[row] > 0
        line = met.astype(np.float32) @ scores
        before = sum((line[one] > line[asked]) + (line[one] == line[asked]) / 2 for one in np.flatnonzero(~met))
        gained.append(1 / math.log2(2 + before - 0.5))
    expected = sum(gained) / len(gained) if gained else 0.0
    assert baseline_choice.quality(found, lambda history: history @ scores) == pytest.approx(expected)
