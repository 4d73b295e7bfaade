"""Poolings against the same computed event by event."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raycl.config import ModelConfig
from raycl.model import history
from raycl.model.history import NUM_AGES, Attention, Layer, Moments, Transformer

WIDTH, DIM = 5, 8
PRESENT = torch.tensor(
    [[True] * 5, [True, True, True, False, False], [False, True, False, True, True], [True, *[False] * 4], [False] * 5]
)


def built(pooling: str, dim: int = DIM, **model: Any) -> nn.Module:
    """A pooling with all its parameters drawn, ready to answer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pool = history.pooling(WIDTH, ModelConfig.model_validate({"dim": dim, "pooling": pooling} | model))
        for parameter in pool.parameters():
            nn.init.normal_(parameter, std=0.3)
    return pool.eval()


def events(rows: int = len(PRESENT)) -> Tensor:
    return torch.randn(rows, WIDTH, DIM, generator=torch.Generator().manual_seed(1))


def ages(rows: int = len(PRESENT)) -> Tensor:
    """Growing along each history, from seconds to years."""
    steps = torch.rand(rows, WIDTH, generator=torch.Generator().manual_seed(2)) * 12
    return steps.exp2().cumsum(1) ** 1.7


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, 1), (0.9, 1), (1.0, 2), (2.9, 2), (3.0, 3), (86_400.0, 17), (1e15, NUM_AGES), (-1.0, 0), (math.nan, 0)],
)
def test_times_are_told_apart_by_doublings_of_a_second(seconds: float, expected: int) -> None:
    moments = Moments(WIDTH, DIM)
    with torch.no_grad():
        moments.position.weight.zero_()
        moments.gap.weight.zero_()
        moments.age.weight.copy_(torch.arange(NUM_AGES + 1.0).unsqueeze(1).expand(-1, DIM))
    assert moments(1, torch.tensor([[seconds]])).unique().tolist() == [expected]


def test_a_moment_is_its_place_its_age_and_the_time_to_the_next_newer_event() -> None:
    moments = built("attention").get_submodule("moments")
    assert isinstance(moments, Moments)
    age_s = torch.tensor([[10.0, 100.0, 100.0, -1.0, 5_000.0]])
    gap_s = [10.0, 90.0, 0.0, None, None]
    for event, gap in enumerate(gap_s):
        age = float(age_s[0, event])
        bucket = [0 if one is None or one < 0 else int(math.log2(1 + one)) + 1 for one in (age, gap)]
        expected = moments.position.weight[event] + moments.age.weight[bucket[0]] + moments.gap.weight[bucket[1]]
        assert torch.allclose(moments(WIDTH, age_s)[0, event], expected, atol=1e-6)


def test_no_times_are_times_that_are_not_known() -> None:
    moments = built("transformer").get_submodule("moments")
    unknown = moments(WIDTH, torch.full((2, WIDTH), math.nan))
    assert torch.equal(moments(WIDTH, None).expand(2, -1, -1), unknown)


def test_attention_is_the_mean_by_scores_of_events_and_their_moments() -> None:
    pool, states, age_s = built("attention"), events(), ages()
    assert isinstance(pool, Attention)
    keys = states + pool.moments(WIDTH, age_s)
    found = pool(states, PRESENT, age_s)
    for row in range(4):
        there = PRESENT[row].nonzero().flatten().tolist()
        scores = [pool.score(torch.tanh(pool.hidden(keys[row, event]))).exp() for event in there]
        weighed = [score * states[row, event] for score, event in zip(scores, there, strict=True)]
        assert torch.allclose(found[row], torch.stack(weighed).sum(0) / torch.stack(scores).sum(), atol=1e-5)


def test_untrained_attention_is_the_mean() -> None:
    pool = history.pooling(WIDTH, ModelConfig(dim=DIM, pooling="attention"))
    states = events()
    found = pool(states, PRESENT, ages())
    for row in range(4):
        assert torch.allclose(found[row], states[row, PRESENT[row]].mean(0), atol=1e-6)


def attended(layer: Layer, states: Tensor, event: int, seen: list[int], heads: int) -> Tensor:
    """The state of one event after a layer, from the states of those that it sees."""
    normed = layer.before_attention(states)
    query = layer.query(normed[event]).reshape(heads, -1)
    keys, values = (one.reshape(len(states), heads, -1) for one in layer.key_value(normed).chunk(2, dim=-1))
    parts = []
    for head in range(heads):
        scores = torch.stack([query[head] @ keys[other, head] for other in seen]) / query.shape[1] ** 0.5
        parts.append(sum(weight * values[other, head] for weight, other in zip(scores.softmax(0), seen, strict=True)))
    after: Tensor = states[event] + layer.merge(torch.cat([part for part in parts if isinstance(part, Tensor)]))
    after = after + layer.dense(layer.before_dense(after))
    return after


@pytest.mark.parametrize("summary", ["last", "mean"])
@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 2), (3, 4)])
def test_the_transformer_is_that_of_loops_over_events_that_see_the_older_ones(
    summary: str, layers: int, heads: int
) -> None:
    pool = built("transformer", history_layers=layers, history_heads=heads, history_summary=summary)
    assert isinstance(pool, Transformer)
    given, age_s = events(), ages()
    found = pool(given, PRESENT, age_s)
    moments = pool.moments(WIDTH, age_s)
    for row in range(4):
        there = PRESENT[row].nonzero().flatten().tolist()
        states = given[row] * DIM**0.5 + moments[row]
        for layer in pool.layers:
            assert isinstance(layer, Layer)
            after = [
                attended(layer, states, event, [other for other in there if other >= event] or [event], heads)
                if event in there
                else states[event]
                for event in range(WIDTH)
            ]
            states = torch.stack(after)
        states = pool.norm(states[there])
        assert torch.allclose(found[row], states[0] if summary == "last" else states.mean(0), atol=1e-5)


@pytest.mark.parametrize("summary", ["last", "mean"])
@pytest.mark.parametrize("pooling", ["attention", "transformer"])
def test_a_history_without_events_is_finite_and_so_are_its_gradients(pooling: str, summary: str) -> None:
    pool, states = built(pooling, history_summary=summary).train(), events().requires_grad_()
    found = pool(states, torch.zeros_like(PRESENT), None)
    found.sum().backward()
    assert found.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in pool.parameters())


@pytest.mark.parametrize("pooling", ["attention", "transformer"])
def test_every_parameter_learns_even_without_times(pooling: str) -> None:
    """DDP waits for the gradient of each."""
    pool = built(pooling).train()
    pool(events(), PRESENT, None).square().sum().backward()
    assert [name for name, parameter in pool.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("pooling", ["attention", "transformer"])
def test_under_bfloat16_a_pooling_is_close_to_itself(pooling: str) -> None:
    pool = built(pooling)
    exact = pool(events(), PRESENT, ages())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = pool(events(), PRESENT, ages())
    assert torch.nn.functional.cosine_similarity(exact[:4], rounded[:4].float()).min() > 0.99
