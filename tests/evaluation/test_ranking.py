"""Top-k of users in blocks against a sort of every user's candidates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.config import PairRules
from raycl.data.packed import Sequences
from raycl.evaluation import ranking
from raycl.evaluation.metrics import NAMES, Sums
from tests.data.builders import part_table
from tests.data.reference import Packed
from tests.evaluation import naive

User = tuple[list[int], list[int]]
"""Context and targets, in time order."""


class Case(NamedTuple):
    """Users, their scores, and what is asked."""

    users: list[User]
    scores: list[list[float]]
    ks: tuple[int, ...]
    num_items: int


@st.composite
def cases(draw: st.DrawFn, *, ties: bool = False) -> Case:
    num_items = draw(st.integers(1, 8))
    items = st.integers(0, num_items - 1)
    ks = tuple(draw(st.lists(st.integers(1, 10), min_size=1, max_size=2, unique=True)))
    users, scores = [], []
    for _ in range(draw(st.integers(1, 6))):
        users.append((draw(st.lists(items, max_size=5)), draw(st.lists(items, min_size=1, max_size=4))))
        if ties:
            scores.append([float(draw(st.integers(0, 2))) for _ in range(num_items)])
        else:
            scores.append([float(score) for score in draw(st.permutations(range(num_items)))])
    return Case(users, scores, ks, num_items)


def sequences(users: list[User]) -> Sequences:
    """The users as the reader gives them, their targets for test."""
    rows = [
        Packed(user, -1, len(context), (*context, *targets), (1.0,) * size, tuple(range(size)))
        for user, (context, targets) in enumerate(users)
        for size in [len(context) + len(targets)]
    ]
    return Sequences.from_table(part_table(rows, "test"))


def evaluate(users: list[User], rank: ranking.Rank, *rest: Any) -> Sums:
    found = sequences(users)
    return ranking.evaluate(found, found.spans("test", PairRules()), rank, *rest)


def evaluated(case: Case, users_per_block: int = 512) -> Sums:
    table = torch.tensor(case.scores)
    rank = ranking.by_score(lambda users: table[users].clone())
    return evaluate(case.users, rank, case.ks, case.num_items, users_per_block)


def truth(case: Case) -> dict[str, float]:
    ranked = [naive.rank(scores, set(context)) for scores, (context, _) in zip(case.scores, case.users, strict=True)]
    return naive.summary(ranked, wanted(case), case.ks, case.num_items)


def wanted(case: Case) -> list[set[int]]:
    return [set(targets) - set(context) for context, targets in case.users]


@given(cases())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_blocks_agree_with_sorting_every_user(case: Case) -> None:
    found = evaluated(case)
    assert found.num_users == sum(1 for targets in wanted(case) if targets)
    if found.num_users:
        assert found.summary() == pytest.approx(truth(case), abs=1e-7)


@given(cases(ties=True), st.sampled_from([1, 2, 5]))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_size_of_the_blocks_does_not_matter(case: Case, users_per_block: int) -> None:
    assert evaluated(case, users_per_block).summary() == pytest.approx(evaluated(case).summary())


@given(cases(ties=True))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_ties_are_broken_one_way_or_the_other(case: Case) -> None:
    """The metrics lie between those of the unluckiest and of the luckiest order of equal scores."""
    found = evaluated(case)
    if not found.num_users:
        return
    bounds = []
    for sign in (-0.1, 0.1):
        nudged = [
            [score + sign * (item in targets) for item, score in enumerate(scores)]
            for scores, targets in zip(case.scores, wanted(case), strict=True)
        ]
        bounds.append(truth(case._replace(scores=nudged)))
    for k in case.ks:
        for name in NAMES:
            key = f"{name}_at_{k}"
            assert bounds[0][key] - 1e-7 <= found.summary()[key] <= bounds[1][key] + 1e-7


def test_what_a_user_met_takes_no_place_in_the_list() -> None:
    """Items 0 and 1 score best but were met, so target 2 is first."""
    found = evaluated(Case([([0, 1], [2])], [[9.0, 8.0, 7.0, 6.0]], (1,), 4)).summary()
    assert found["recall_at_1"] == found["mrr_at_1"] == 1.0
    assert found["coverage_at_1"] == 0.25


def test_a_target_that_was_met_before_is_not_counted() -> None:
    """Of targets 1 and 3 only 3 is to be found; the user whose only target was met is left out."""
    case = Case([([1], [1, 3]), ([2], [2, 2])], [[0.0, 9.0, 8.0, 7.0]] * 2, (2,), 4)
    found = evaluated(case)
    assert found.num_users == 1
    assert found.summary()["recall_at_2"] == 1.0


def test_a_target_that_comes_twice_is_one_target() -> None:
    found = evaluated(Case([([], [3, 3])], [[1.0, 2.0, 3.0, 4.0]], (1,), 4)).summary()
    assert found["recall_at_1"] == found["ndcg_at_1"] == 1.0


def test_users_without_a_target_leave_nothing_to_measure() -> None:
    found = evaluated(Case([([0], [0]), ([1, 2], [2])], [[1.0, 2.0, 3.0]] * 2, (1, 5), 3))
    assert found.num_users == 0
    assert set(found.summary().values()) == {0.0}


def test_users_that_are_not_measured_leave_no_trace() -> None:
    users: list[User] = [([0], [1]), ([1], [2]), ([2], [0])]
    table = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]])
    measured = np.array([True, False, True])
    rank = ranking.by_score(lambda block: table[block].clone())
    found = evaluate(users, rank, (1,), 3, 2, measured)
    rank = ranking.by_score(lambda block: table[[0, 2]][block].clone())
    alone = evaluate([users[0], users[2]], rank, (1,), 3, 2)
    assert found.num_users == 2
    assert found.summary() == alone.summary()


@given(cases(), st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_popularity_ranks_as_scores_by_count_then_row_do(case: Case, data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), min_size=case.num_items, max_size=case.num_items))
    rank = ranking.by_popularity(np.array(counts, dtype=np.int64))
    found = evaluate(case.users, rank, case.ks, case.num_items, 2)
    expected = truth(case._replace(scores=[[float(count) for count in counts]] * len(case.users)))
    if found.num_users:
        assert found.summary() == pytest.approx(expected, abs=1e-7)
