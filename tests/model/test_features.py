"""What the towers read of features, on inputs small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from raycl.model.features import FeatureBlock
from raycl.model.inputs import FeatureRows
from raycl.model.spec import FeatureSizes
from tests.model.builders import SOME_FEATURES, some_features

NAN = torch.nan


def block(sizes: FeatureSizes = SOME_FEATURES, dim: int = 8, dropout: float = 0.0) -> FeatureBlock:
    """A block whose unknowns say something, ready to answer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = FeatureBlock(sizes, dim, dropout)
        for parameter in built.parameters():
            torch.nn.init.normal_(parameter)
    with torch.no_grad():
        for bag in built.bags:
            bag.get_parameter("weight")[0] = 0.0
    return built.eval()


def read(built: FeatureBlock, rows: FeatureRows) -> Tensor:
    found: Tensor | None = built(rows)
    assert found is not None
    return found


def test_features_are_added_and_each_bag_is_the_mean_of_its_tokens_without_padding() -> None:
    built = block(FeatureSizes((5, 3), 2))
    first, second = (bag.weight for bag in built.bags)
    assert built.numbers is not None
    rows = FeatureRows(
        (torch.tensor([[2, 4, 0], [1, 0, 0]]), torch.tensor([[2], [1]])), torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    )
    numbers = built.numbers.weight @ torch.tensor([1.0, -2.0])
    expected = torch.stack([(first[2] + first[4]) / 2 + second[2] + numbers, first[1] + second[1]])  # type: ignore[index]
    assert torch.allclose(read(built, rows), expected, atol=1e-6)


def test_a_number_that_is_unknown_has_a_vector_of_its_own_and_zero_is_not_unknown() -> None:
    built = block(FeatureSizes((), 2))
    assert built.numbers is not None
    assert built.unknown_numbers is not None
    found = read(built, FeatureRows((), torch.tensor([[NAN, 3.0], [0.0, 3.0], [NAN, NAN]])))
    known = built.numbers.weight[:, 1] * 3.0
    expected = [built.unknown_numbers[0] + known, known, built.unknown_numbers.sum(0)]
    assert torch.allclose(found, torch.stack(expected), atol=1e-6)


def test_a_given_vector_is_mapped_and_brought_to_one_scale_and_a_missing_one_has_its_own() -> None:
    built = block(FeatureSizes((), 0, (3,)))
    (vector,) = built.vectors
    given = torch.tensor([[1.0, 2.0, 3.0], [NAN, NAN, NAN], [0.0, 0.0, 0.0]])
    found = read(built, FeatureRows((), torch.zeros(3, 0), (given,)))
    linear, norm = vector.get_submodule("linear"), vector.get_submodule("norm")
    mapped = layer_norm(linear(given[[0, 2]]), (8,), norm.weight, norm.bias)  # type: ignore[arg-type]
    assert torch.allclose(found[[0, 2]], mapped, atol=1e-6)
    assert torch.equal(found[1], vector.get_parameter("unknown"))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6, 1e15])
def test_untrained_vectors_have_about_unit_length_whatever_their_scale(scale: float) -> None:
    torch.manual_seed(0)
    built = FeatureBlock(FeatureSizes((), 0, (30,)), 64)
    found = read(built, FeatureRows((), torch.zeros(20, 0), (torch.randn(20, 30) * scale,)))
    assert found.norm(dim=1).tolist() == pytest.approx([1.0] * 20, rel=1e-2)


def test_an_untrained_block_says_nothing_of_a_row_of_unknowns() -> None:
    built = FeatureBlock(SOME_FEATURES, 8)
    rows = FeatureRows(
        (torch.tensor([[1, 0]]), torch.tensor([[1]])), torch.full((1, 2), NAN), (torch.full((1, 3), NAN),)
    )
    assert not read(built, rows).any()


def test_every_vector_of_an_unknown_is_learned_and_padding_is_not() -> None:
    built = block()
    rows = FeatureRows(
        (torch.tensor([[1, 0]]), torch.tensor([[1]])), torch.full((1, 2), NAN), (torch.full((1, 3), NAN),)
    )
    torch.autograd.backward(read(built, rows)[:, 0].sum())
    assert built.unknown_numbers is not None
    gradients = {
        name: None if parameter.grad is None else parameter.grad.to_dense()
        for name, parameter in built.named_parameters()
    }
    for bag in (0, 1):
        gradient = gradients[f"bags.{bag}.weight"]
        assert gradient is not None
        assert [bool(row.any()) for row in gradient] == [False, True, *[False] * (len(gradient) - 2)]
    for name in ("unknown_numbers", "vectors.0.unknown"):
        gradient = gradients[name]
        assert gradient is not None
        assert bool(gradient.any())
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients.values())


def test_each_row_is_read_alike_alone_and_among_others() -> None:
    built, rows = block(), some_features(7)
    together = read(built, rows)
    alone = torch.cat([read(built, rows.take(torch.tensor([row]))) for row in range(7)])
    assert torch.allclose(alone, together, atol=1e-6)


def test_without_features_there_is_nothing() -> None:
    assert block(FeatureSizes((), 0))(FeatureRows((), torch.zeros(3, 0))) is None


def test_in_training_a_share_of_the_values_is_unknown_and_in_use_none_is() -> None:
    built, size = block(dropout=0.3), 20_000
    rows = some_features(2).take(torch.zeros(size, dtype=torch.long))
    known = FeatureRows(
        (torch.full((size, 3), 2), torch.full((size, 2), 2)), rows.numbers.nan_to_num(1.0), rows.vectors
    )
    plain = read(built, known)
    assert torch.equal(plain, plain[:1].expand(size, -1))
    torch.manual_seed(0)
    kinds, counts = torch.unique(read(built.train(), known), dim=0, return_counts=True)
    assert len(kinds) == 2**5  # two bags, two numbers and a vector, each known or not
    whole = (kinds - plain[0]).abs().sum(1).argmin()
    assert int(counts[whole]) / size == pytest.approx(0.7**5, abs=0.02)
    torch.manual_seed(0)
    assert torch.equal(read(block(dropout=0.0).train(), known), plain)
