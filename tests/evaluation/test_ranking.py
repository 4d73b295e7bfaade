"""Users in blocks, ranked by every way to score, against a sort of every user's candidates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from raycl.config import PairRules
from raycl.data.packed import Sequences
from raycl.evaluation import metrics, ranking
from raycl.evaluation.ranking import Block, Rank, Ranking
from tests.data.builders import part_table
from tests.data.reference import Packed
from tests.evaluation import naive

User = tuple[list[int], list[int]]
"""Context and targets, in time order."""


class Case(NamedTuple):
    """Users, what scores them, and what is asked."""

    users: list[User]
    seed: int
    k: int
    num_items: int
    users_per_block: int
    repeats: bool = False


@st.composite
def cases(draw: st.DrawFn) -> Case:
    num_items = draw(st.integers(1, 8))
    items = st.integers(0, num_items - 1)
    user = st.tuples(st.lists(items, max_size=5), st.lists(items, min_size=1, max_size=4))
    users = draw(st.lists(user, min_size=1, max_size=6))
    return Case(
        users,
        draw(st.integers(0, 2**31)),
        draw(st.integers(1, 10)),
        num_items,
        draw(st.integers(1, 7)),
        draw(st.booleans()),
    )


def sequences(users: list[User]) -> Sequences:
    """The users as the reader gives them, their targets for test; the weight of an event is its place."""
    rows = [
        Packed(user, -1, len(context), (*context, *targets), tuple(map(float, range(size))), tuple(range(size)))
        for user, (context, targets) in enumerate(users)
        for size in [len(context) + len(targets)]
    ]
    return Sequences.from_table(part_table(rows, "test"))


def blocks(case: Case) -> list[Block]:
    found = sequences(case.users)
    spans = found.spans("test", PairRules())
    return list(ranking.blocks(found, spans, case.num_items, case.users_per_block, repeats=case.repeats))


def ranked(case: Case, rank: Rank) -> list[tuple[Block, Ranking]]:
    return [(block, rank(block, case.k)) for block in blocks(case)]


def require_sorted(case: Case, rank: Rank, scores: np.ndarray) -> None:
    """Rows, scores of targets and areas under the curve are those of every user's own sort."""
    for block, found in ranked(case, rank):
        assert found.higher is not None
        assert found.same is not None
        assert found.scores is not None
        areas = metrics.auc(block.wanted[0], found.higher, found.same, block.num_others)
        for place, user in enumerate(range(block.users.start, block.users.stop)):
            context = set() if case.repeats else set(case.users[user][0])
            order = naive.rank(scores[user].tolist(), context)[: case.k]
            assert found.rows[place].tolist() == order + [-1] * (case.k - len(order))
            mine = block.wanted[0] == place
            targets = set(case.users[user][1]) - context
            assert set(block.wanted[1][mine].tolist()) == targets
            assert found.scores[mine] == pytest.approx(scores[user, block.wanted[1][mine]], abs=1e-4)
            assert areas[place] == pytest.approx(naive.auc(scores[user].tolist(), targets, context), nan_ok=True)


@given(cases())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_vectors_rank_as_sorted_inner_products(case: Case) -> None:
    generator = torch.Generator().manual_seed(case.seed)
    users = torch.randint(-2, 3, (len(case.users), 3), generator=generator).float()
    items = torch.randint(-2, 3, (case.num_items, 3), generator=generator).float()
    require_sorted(case, ranking.exact(ranking.by_vectors(users, items), auc=True), (users @ items.T).numpy())


@given(cases())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_counts_rank_as_the_same_scores_for_all(case: Case) -> None:
    """Counts beyond the exact numbers of float32 are still told apart."""
    counts = np.random.default_rng(case.seed).integers(0, 4, case.num_items) + 2**40
    _, places = np.unique(counts, return_inverse=True)
    scores = np.tile(places.astype(np.float64), (len(case.users), 1))
    require_sorted(case, ranking.exact(ranking.by_counts(counts), auc=True), scores)


@given(cases())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_neighbours_rank_as_sums_over_the_distinct_items_of_the_context(case: Case) -> None:
    near = np.random.default_rng(case.seed).integers(0, 3, (case.num_items, case.num_items)).astype(np.float32)
    scores = np.array([near[sorted(set(context))].sum(0) for context, _ in case.users])
    require_sorted(case, ranking.exact(ranking.by_neighbours(sparse.csr_array(near)), auc=True), scores)


@given(cases())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_factors_rank_by_what_histories_are_folded_into(case: Case) -> None:
    items = np.random.default_rng(case.seed).integers(-2, 3, (case.num_items, 2)).astype(np.float32)
    scorer = ranking.by_factors(lambda history: (history @ items).astype(np.float32), torch.from_numpy(items))
    users = np.array([items[context].sum(0) for context, _ in case.users])
    require_sorted(case, ranking.exact(scorer, auc=True), users @ items.T)


def test_what_may_be_met_again_is_a_candidate_and_wanted_and_still_makes_the_history() -> None:
    case = Case([([1], [3, 1, 3])], 0, 2, 4, 8, repeats=True)
    (block,) = blocks(case)
    assert [part.tolist() for part in block.wanted] == [[0, 0], [1, 3]]
    assert block.rating.tolist() == [2.0, 1.0]
    assert block.history.toarray().tolist() == [[0, 1, 0, 0]]
    assert block.num_others.tolist() == [2]
    ((_, found),) = ranked(case, ranking.exact(ranking.by_counts(np.array([1, 9, 2, 3])), auc=False))
    assert found.rows.tolist() == [[1, 3]]


def test_without_the_area_nothing_is_counted() -> None:
    case = Case([([0], [1])], 0, 2, 3, 1)
    ((_, found),) = ranked(case, ranking.exact(ranking.by_counts(np.array([1, 2, 3])), auc=False))
    assert (found.higher, found.same) == (None, None)


def test_a_target_that_was_met_before_is_not_wanted_and_one_that_comes_twice_is_wanted_once() -> None:
    """Of the two events of item 3 the rating is that of the first."""
    (block,) = blocks(Case([([1], [3, 1, 3]), ([2], [2, 2])], 0, 2, 4, 8))
    assert [part.tolist() for part in block.wanted] == [[0], [3]]
    assert block.rating.tolist() == [1.0]
    assert block.num_targets.tolist() == [1, 0]
    assert block.num_others.tolist() == [2, 3]
