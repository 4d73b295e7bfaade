"""How far the expected gradient of a sampled loss is from that of the softmax over the whole catalogue.

A catalogue of 200 items drawn by Zipf's law, users whose logits are N(0, 1.5²) and whose own item is such a draw. The
bias is relative to the length of the true gradient with respect to the logits; the noise of the Monte-Carlo mean is
taken out by multiplying two independent halves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from raycl.model.losses import corrected_softmax, softmax

NUM_ITEMS, NUM_USERS, SEEDS = 200, 30, range(4)
Q = torch.nn.functional.normalize(1 / torch.arange(1, NUM_ITEMS + 1, dtype=torch.float64), p=1, dim=0)
TRIALS = {15: 800, 63: 250, 255: 60}
CELLS = 8_192
"""Of a block of trials, at most: each trial is a row, whose candidates no other row has."""

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Of logits (items,), candidates (columns,), the place of each row's own item, and each row's draws."""


def _users(own: Tensor) -> tuple[Tensor, Tensor]:
    """Of length 1, so that their score of an item is that item's only coordinate; all weigh the same."""
    return torch.ones(len(own), 1, dtype=torch.float64), torch.ones(len(own), dtype=torch.float64)


def _others(items: Tensor, own: Tensor, drawn: Tensor) -> Tensor:
    return drawn & (items[None, :] != items[own, None])


def uncorrected(logits: Tensor, items: Tensor, own: Tensor, drawn: Tensor) -> Tensor:
    users, ones = _users(own)
    return softmax.loss(users, logits[items, None], own, drawn, None, ones, 1.0)


def with_log_q(logits: Tensor, items: Tensor, own: Tensor, drawn: Tensor) -> Tensor:
    users, ones = _users(own)
    return softmax.loss(users, logits[items, None], own, drawn, Q.log()[items], ones, 1.0)


def with_mask(logits: Tensor, items: Tensor, own: Tensor, drawn: Tensor) -> Tensor:
    users, ones = _users(own)
    return softmax.loss(users, logits[items, None], own, _others(items, own, drawn), Q.log()[items], ones, 1.0)


def corrected(logits: Tensor, items: Tensor, own: Tensor, drawn: Tensor) -> Tensor:
    users, ones = _users(own)
    others = _others(items, own, drawn)
    return corrected_softmax.loss(users, logits[items, None], own, others, Q.log()[items], ones, 1.0)


LOSSES: tuple[Loss, ...] = (uncorrected, with_log_q, with_mask, corrected)


def expected_gradient(loss: Loss, logits: Tensor, own: Tensor, draws: Tensor) -> Tensor:
    """Mean over draws (trials, negatives) of the gradient in the logits; every draw counts, the own item too."""
    leaf, width = logits.clone().requires_grad_(), draws.shape[1] + 1
    for some in torch.split(draws, max(int((CELLS / width) ** 0.5), 1)):
        items = torch.cat([own.expand(len(some), 1), some], 1).reshape(-1)
        places = torch.arange(len(some)) * width
        drawn = torch.eye(len(some), dtype=torch.bool).repeat_interleave(width, 1)
        drawn[torch.arange(len(some)), places] = False
        (loss(leaf, items, places, drawn) * len(some) / len(draws)).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return leaf.grad


@functools.cache
def biases(num_negatives: int, seed: int) -> list[float]:
    """Of each loss, on the same draws; the users depend on the seed alone."""
    users, generator = (torch.Generator().manual_seed(one) for one in (seed, 1_000 + seed))
    error, length = torch.zeros(len(LOSSES), dtype=torch.float64), 0.0
    for _ in range(NUM_USERS):
        logits = 1.5 * torch.randn(NUM_ITEMS, generator=users, dtype=torch.float64)
        own = torch.multinomial(Q, 1, generator=users)[0]
        true = logits.softmax(0)
        true[own] -= 1
        draws = torch.multinomial(Q, 2 * TRIALS[num_negatives] * num_negatives, replacement=True, generator=generator)
        halves = draws.view(2, -1, num_negatives)
        for place, loss in enumerate(LOSSES):
            first, second = (expected_gradient(loss, logits, own, half) - true for half in halves)
            error[place] += first @ second
        length += float(true @ true)
    return (error / length).clamp(min=0).sqrt().tolist()


@pytest.mark.parametrize(
    ("num_negatives", "expected"),
    [(15, (0.301, 0.163, 0.160, 0.118)), (63, (0.296, 0.088, 0.086, 0.076)), (255, (0.304, 0.041, 0.040, 0.039))],
)
def test_the_bias_is_that_of_an_independent_measurement(num_negatives: int, expected: tuple[float, ...]) -> None:
    """Of other draws, over 10 seeds of which each varies by 0.012 to 0.028."""
    found = torch.tensor([biases(num_negatives, seed) for seed in SEEDS]).mean(0)
    assert found.tolist() == pytest.approx(expected, abs=0.025)


def test_more_negatives_help_only_what_is_corrected() -> None:
    few, many = (torch.tensor([biases(number, seed) for seed in SEEDS]).mean(0) for number in (15, 255))
    assert many[0] > 0.9 * few[0]
    assert (many[1:] < 0.5 * few[1:]).all()


@pytest.mark.parametrize("num_negatives", [15, 63])
def test_the_correction_of_the_own_item_leaves_less_bias_for_every_seed(num_negatives: int) -> None:
    for seed in SEEDS:
        _, plain, masked, best = biases(num_negatives, seed)
        assert best < masked <= plain
