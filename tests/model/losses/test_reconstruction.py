"""Features read back from a vector, against a loop over rows and tokens."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raycl.model.losses import reconstruction

GENERATOR = torch.Generator().manual_seed(0)
NUMBERS, READ_NUMBERS = torch.randn(2, 5, 3, generator=GENERATOR, dtype=torch.float64)
TOKENS = [torch.tensor([[1, 3], [2, 0], [0, 0], [4, 4], [5, 1]]), torch.tensor([[1], [0], [2], [2], [1]])]
READ_TOKENS = [torch.randn(5, size, generator=GENERATOR, dtype=torch.float64) for size in (6, 3)]
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0], dtype=torch.float64)


def naive(tokens: list[Tensor], logits: list[Tensor]) -> float:
    total = 0.0
    for row in range(5):
        cost = sum((float(NUMBERS[row, n]) - float(READ_NUMBERS[row, n])) ** 2 for n in range(3)) / 3
        for feature, read in zip(tokens, logits, strict=True):
            present = [int(token) for token in feature[row] if token > 0]
            among = math.log(sum(math.exp(float(logit)) for logit in read[row]))
            cost += sum(among - float(read[row, token]) for token in present) / max(len(present), 1)
        total += float(WEIGHTS[row]) * cost
    return total / 5


@pytest.mark.parametrize("num_features", [0, 1, 2])
def test_the_loss_is_that_of_a_loop(num_features: int) -> None:
    tokens, logits = TOKENS[:num_features], READ_TOKENS[:num_features]
    found = reconstruction.loss(NUMBERS, READ_NUMBERS, tokens, logits, WEIGHTS)
    assert found.item() == pytest.approx(naive(tokens, logits), rel=1e-12)


def test_without_numbers_the_tokens_are_read_alone() -> None:
    none = torch.zeros(5, 0, dtype=torch.float64)
    both = reconstruction.loss(NUMBERS, READ_NUMBERS, TOKENS, READ_TOKENS, WEIGHTS)
    numbers = reconstruction.loss(NUMBERS, READ_NUMBERS, [], [], WEIGHTS)
    tokens = reconstruction.loss(none, none, TOKENS, READ_TOKENS, WEIGHTS)
    assert (numbers + tokens).item() == pytest.approx(both.item(), rel=1e-12)


def test_a_certain_reading_of_the_only_token_costs_nothing() -> None:
    tokens = torch.tensor([[2, 0]])
    logits = torch.tensor([[0.0, 0.0, 100.0]])
    none = torch.zeros(1, 0)
    assert reconstruction.loss(none, none, [tokens], [logits], torch.ones(1)).item() == pytest.approx(0.0, abs=1e-6)
