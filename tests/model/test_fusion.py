"""Gates over the parts of a row, beside what they are worked out to by hand."""

from __future__ import annotations

import pytest
import torch

from raycl.model.features import FeatureBlock
from raycl.model.fusion import Gates
from raycl.model.inputs import FeatureRows
from tests.model.builders import SOME_FEATURES

NAN = torch.nan


def gates(num_parts: int, dim: int) -> Gates:
    torch.manual_seed(1)
    built = Gates(num_parts, dim)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter)
    return built


def test_untrained_gates_are_a_sum_where_nothing_is_missing() -> None:
    parts = torch.randn(3, 5, 4)
    everything = torch.ones(3, 5, dtype=torch.bool)
    assert torch.allclose(Gates(3, 4)(parts, everything), parts.sum(0), atol=1e-6)


def test_each_part_counts_by_what_it_says_itself() -> None:
    built, parts = gates(2, 4), torch.randn(2, 1, 4)
    said = [built.weight[place] @ parts[place, 0] + built.bias[place] for place in range(2)]
    share = torch.softmax(torch.stack(said), 0)
    expected = 2 * (share[0] * parts[0, 0] + share[1] * parts[1, 0])
    assert torch.allclose(built(parts, torch.ones(2, 1, dtype=torch.bool))[0], expected, atol=1e-6)


def test_what_is_missing_takes_no_share_and_moves_nothing() -> None:
    built, parts = gates(3, 4), torch.randn(3, 6, 4)
    present = torch.tensor([[True] * 6, [True, False] * 3, [False] * 3 + [True] * 3])
    shares = built.shares(parts, present)
    assert torch.equal(shares > 0, present)
    assert torch.allclose(shares.sum(0), torch.ones(6))
    other = torch.where(present[:, :, None], parts, torch.randn(3, 6, 4))
    assert torch.equal(built(parts, present), built(other, present))


def test_a_row_with_nothing_is_the_sum_of_what_stands_for_the_unknown_and_has_a_gradient() -> None:
    built, parts = gates(2, 4), torch.randn(2, 3, 4, requires_grad=True)
    found = built(parts, torch.zeros(2, 3, dtype=torch.bool))
    assert torch.equal(found, parts.sum(0))
    found.sum().backward()
    assert all(bool(one.grad.isfinite().all()) for one in (parts, built.weight, built.bias) if one.grad is not None)
    assert torch.equal(parts.grad, torch.ones(2, 3, 4))  # type: ignore[arg-type]


def block() -> FeatureBlock:
    torch.manual_seed(0)
    built = FeatureBlock(SOME_FEATURES, 8, gated=True)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter)
    return built.eval()


def known() -> FeatureRows:
    """Four rows of which everything is known."""
    tokens = torch.tensor([[2, 3], [4, 0], [3, 0], [2, 4]]), torch.tensor([[2], [2], [2], [2]])
    return FeatureRows(tokens, torch.randn(4, 2), (torch.randn(4, 3),))


def test_a_block_gates_its_bags_its_numbers_together_and_its_vectors() -> None:
    built = block()
    assert built.gates is not None
    assert len(built.gates.weight) == len(SOME_FEATURES.bag_tokens) + 1 + len(SOME_FEATURES.vector_lengths)


@pytest.mark.parametrize("unknown", ["tokens", "numbers", "vectors"])
def test_a_missing_value_of_a_row_leaves_its_share_to_the_rest_of_that_row(unknown: str) -> None:
    built, rows = block(), known()
    tokens, numbers, vectors = [one.clone() for one in rows.tokens], rows.numbers.clone(), rows.vectors[0].clone()
    if unknown == "tokens":
        tokens[0][2] = 0
        tokens[0][2, 0] = 1
    elif unknown == "numbers":
        numbers[2] = NAN
    else:
        vectors[2] = NAN
    before, after = built(rows), built(FeatureRows(tuple(tokens), numbers, (vectors,)))
    assert before is not None
    assert torch.equal(torch.arange(4)[(before != after).any(1)], torch.tensor([2]))
    lacking = {"tokens": "bags.0.weight", "numbers": "unknown_numbers", "vectors": "vectors.0.unknown"}[unknown]
    with torch.no_grad():
        found = dict(built.named_parameters())[lacking]
        found[1 if unknown == "tokens" else slice(None)] += 1.0
    assert torch.equal(built(FeatureRows(tuple(tokens), numbers, (vectors,)))[2], after[2])


def test_one_feature_alone_has_no_gate() -> None:
    assert FeatureBlock(type(SOME_FEATURES)((5,), 0), 8, gated=True).gates is None
