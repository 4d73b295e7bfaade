"""Top-k by blocks against a stable sort of every user's scores."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raycl.evaluation import topk
from raycl.evaluation.topk import Cells


class Case(NamedTuple):
    """Scores (users, items), the cells that are left out and asked for, k and the items of a block."""

    scores: Tensor
    met: Tensor
    wanted: Tensor
    k: int
    items_per_block: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Few distinct scores, so that most tie; small seeds stand for whole tables."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    num_users, num_items = draw(st.integers(1, 5)), draw(st.integers(1, 150))
    distinct = draw(st.sampled_from([1, 2, 5, 40, 10_000]))
    scores = torch.randint(0, distinct, (num_users, num_items), generator=generator).float()
    lost = draw(st.sampled_from([0.0, 0.3, 1.0]))
    met = (torch.rand(num_users, num_items, generator=generator) < lost).nonzero()
    wanted = (torch.rand(num_users, num_items, generator=generator) < 0.2).nonzero()
    wanted = wanted[torch.randperm(len(wanted), generator=generator)]
    return Case(scores, met, wanted, draw(st.integers(1, 200)), draw(st.sampled_from([1, 32, 64, 4_096])))


def cells(pairs: Tensor) -> Cells:
    return Cells.of(pairs[:, 0], pairs[:, 1])


def table(scores: Tensor) -> topk.Score:
    def score(first: int, stop: int, out: Tensor) -> None:
        out.copy_(scores[:, first:stop])

    return score


def best_of(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    users, items = case.scores.shape
    met, wanted = cells(case.met), cells(case.wanted)
    return topk.best(table(case.scores), users, items, case.k, met, wanted, items_per_block=case.items_per_block)


@given(cases())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_blocks_agree_with_a_stable_sort_of_every_user(case: Case) -> None:
    left = case.scores.clone()
    left[case.met[:, 0], case.met[:, 1]] = -torch.inf
    order = left.sort(dim=1, descending=True, stable=True)
    width = min(case.k, left.shape[1])
    scores = torch.full((len(left), case.k), -torch.inf)
    scores[:, :width] = order.values[:, :width]
    rows = torch.full((len(left), case.k), -1)
    rows[:, :width] = torch.where(scores[:, :width] > -torch.inf, order.indices[:, :width], -1)
    found = best_of(case)
    assert torch.equal(found[0], rows)
    assert torch.equal(found[1], scores)
    assert torch.equal(found[2], case.scores[case.wanted[:, 0], case.wanted[:, 1]])


@given(cases())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_beats_a_cell_is_counted_as_a_loop_does(case: Case) -> None:
    users, items = case.scores.shape
    wanted, out = cells(case.wanted), cells(torch.cat([case.met, case.wanted]))
    bars = case.scores[case.wanted[:, 0], case.wanted[:, 1]]
    score, size = table(case.scores), case.items_per_block
    higher, same = topk.beaten_by(score, users, items, wanted, bars, out, items_per_block=size)
    left_out = set(map(tuple, torch.cat([case.met, case.wanted]).tolist()))
    for place, (user, item) in enumerate(case.wanted.tolist()):
        mine = case.scores[user].tolist()
        others = [mine[other] for other in range(items) if (user, other) not in left_out]
        assert int(higher[place]) == sum(other > mine[item] for other in others)
        assert int(same[place]) == sum(other == mine[item] for other in others)


def test_inner_products_are_ranked_over_many_blocks() -> None:
    generator = torch.Generator().manual_seed(3)
    users = torch.randint(-9, 10, (7, 12), generator=generator).float()
    items = torch.randint(-9, 10, (5_001, 12), generator=generator).float()
    nothing = cells(torch.zeros(0, 2, dtype=torch.int64))
    rows, scores, _ = topk.best(topk.vectors(users, items), 7, 5_001, 60, nothing)
    expected = (users @ items.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(rows, expected.indices[:, :60])
    assert torch.equal(scores, expected.values[:, :60])


def test_no_users_have_no_lists() -> None:
    nothing = cells(torch.zeros(0, 2, dtype=torch.int64))
    rows, scores, found = topk.best(table(torch.zeros(0, 9)), 0, 9, 4, nothing, nothing)
    assert (rows.shape, scores.shape, found.shape) == ((0, 4), (0, 4), (0,))


@pytest.mark.requires_gpu
def test_a_gpu_finds_what_the_processor_finds() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    generator = torch.Generator().manual_seed(4)
    users = torch.randint(-9, 10, (70, 16), generator=generator).float()
    items = torch.randint(-9, 10, (200_003, 16), generator=generator).float()
    met = torch.stack([torch.arange(70), torch.arange(70) * 11], 1)
    here = topk.best(topk.vectors(users, items), 70, 200_003, 50, cells(met))
    score = topk.vectors(users.cuda(), items.cuda())
    there = topk.best(score, 70, 200_003, 50, cells(met.cuda()), device="cuda")
    assert torch.equal(here[0], there[0].cpu())
    assert torch.equal(here[1], there[1].cpu())
