"""What the towers compute, on inputs small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from raycl.model.history import WeightedMean
from raycl.model.towers import TwoTower
from tests.model.builders import (
    NO_FEATURES,
    NUM_ITEMS,
    POOLINGS,
    SOME_FEATURES,
    no_features,
    some_features,
    tower_spec,
    towers,
)

ALL = torch.arange(NUM_ITEMS)
HISTORIES = torch.tensor([[0, 1, 2, 3], [2, -1, -1, -1], [-1, -1, -1, -1], [5, 4, -1, -1]])


def users_of(built: TwoTower, *histories: list[int]) -> Tensor:
    with torch.no_grad():
        vectors: Tensor = built.user(torch.tensor(histories), no_features(len(histories)))
    return vectors


def items_of(built: TwoTower, items: Tensor = ALL, hidden: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        vectors: Tensor = built.item(items, no_features(len(items)), hidden)
    return vectors


@pytest.mark.parametrize("features", [NO_FEATURES, SOME_FEATURES])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("hidden", [(), (12,), (12, 5)])
def test_every_vector_has_unit_length(features: object, pooling: str, hidden: tuple[int, ...]) -> None:
    described = features is SOME_FEATURES
    sizes = SOME_FEATURES if described else NO_FEATURES
    built = towers(tower_spec(sizes, sizes, pooling=pooling, hidden=hidden))
    make = some_features if described else no_features
    users, items = built(HISTORIES, make(4), ALL[:4], make(4))
    for vectors in (users, items):
        assert vectors.shape == (4, 8)
        assert vectors.norm(dim=1).tolist() == pytest.approx([1.0] * 4)


def test_the_pooled_history_is_the_mean_of_its_items_and_features_are_added() -> None:
    built = towers(tower_spec(users=SOME_FEATURES, hidden=()))
    assert built.user.history is not None
    rows, features = built.user.history.weight, some_features(3)
    described = built.user.features(features)
    assert described is not None
    pooled = torch.stack([(rows[1] + rows[4]) / 2, rows[2], (2 * rows[1] + rows[2]) / 3])
    found = built.user(torch.tensor([[0, 3, -1, -1], [1, -1, -1, -1], [0, 0, 1, -1]]), features)
    assert torch.allclose(found, normalize(pooled + described, dim=-1), atol=1e-6)


def test_recency_weighs_each_position() -> None:
    built = towers(tower_spec(hidden=(), pooling="recency"))
    assert isinstance(built.user.pool, WeightedMean)
    assert built.user.history is not None
    rows, recency = built.user.history.weight, built.user.pool.recency
    assert recency is not None
    first, third = recency[0].exp(), recency[2].exp()
    expected = (first * rows[1] + third * rows[2]) / (first + third)
    assert torch.allclose(users_of(built, [0, -1, 1, -1])[0], normalize(expected, dim=-1), atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("summary", ["last", "mean"])
def test_padding_after_a_history_is_ignored(pooling: str, summary: str) -> None:
    built = towers(tower_spec(pooling=pooling, history_summary=summary))
    assert torch.allclose(users_of(built, [1, 2]), users_of(built, [1, 2, -1, -1]), atol=1e-6)


def test_without_recency_padding_is_ignored_anywhere() -> None:
    built = towers(tower_spec())
    assert torch.allclose(users_of(built, [1, -1, 2, -1]), users_of(built, [2, 1, -1, -1]), atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_empty_history_has_a_vector_of_its_own(pooling: str) -> None:
    built = towers(tower_spec(hidden=(), pooling=pooling))
    empty = users_of(built, [-1] * 4)[0]
    assert torch.allclose(empty, normalize(built.user.empty, dim=-1), atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_items_that_training_has_not_seen_are_passed_over_in_a_history(pooling: str) -> None:
    built = towers(tower_spec(pooling=pooling), known=(0, 1))
    assert torch.equal(users_of(built, [5, 0, -1, 4]), users_of(built, [-1, 0, -1, -1]))
    assert torch.equal(users_of(built, [5, 4, 2, 3]), users_of(built, [-1] * 4))


def test_items_that_training_has_not_seen_share_one_embedding() -> None:
    built = towers(tower_spec(), known=(0, 1))
    found = items_of(built)
    assert len({tuple(row) for row in found.tolist()}) == 3
    assert found[2].tolist() == found[3].tolist() == found[5].tolist()


def test_a_hidden_item_takes_the_shared_embedding() -> None:
    built = towers(tower_spec(), known=(0, 1))
    hidden = torch.tensor([True, False, False, True, False, False])
    found, plain = items_of(built, hidden=hidden), items_of(built)
    assert found[0].tolist() == plain[5].tolist()
    assert found[1:].tolist() == plain[1:].tolist()


def test_the_shared_embedding_is_learned_from_hidden_items() -> None:
    built = towers(tower_spec(), known=(0, 1))
    assert built.item.ids is not None
    for hidden, learns in ((True, True), (False, False)):
        built.zero_grad()
        vectors = built.item(torch.tensor([0, 1]), no_features(2), torch.tensor([hidden, False]))
        vectors[:, 0].sum().backward()
        assert built.item.ids.weight.grad is not None
        assert bool(built.item.ids.weight.grad.to_dense()[0].any()) is learns


def test_without_item_ids_an_item_is_its_features_alone() -> None:
    built = towers(tower_spec(items=SOME_FEATURES, item_id=False), known=(0,))
    same = some_features(1).take(torch.zeros(NUM_ITEMS, dtype=torch.long))
    found = built.item(ALL, same)
    assert torch.allclose(found, found[:1].expand_as(found), atol=1e-6)


def test_features_of_users_move_them() -> None:
    built = towers(tower_spec(users=SOME_FEATURES))
    vectors = built.user(HISTORIES[[0, 0]], some_features(2))
    assert not torch.allclose(vectors[0], vectors[1])


@pytest.mark.parametrize("pooling", ["attention", "transformer"])
def test_when_events_were_moves_a_user(pooling: str) -> None:
    built, history = towers(tower_spec(pooling=pooling)), HISTORIES[:2]
    day, year = torch.full((2, 4), 86_400.0), torch.full((2, 4), 3e7)
    unknown = built.user(history, no_features(2))
    found = [built.user(history, no_features(2), age_s) for age_s in (day, year)]
    assert not torch.allclose(found[0][0], found[1][0], atol=1e-3)
    assert not torch.allclose(found[0][0], unknown[0], atol=1e-3)
    for never in (-1.0, torch.nan):
        assert torch.equal(built.user(history, no_features(2), torch.full((2, 4), never)), unknown)


@pytest.mark.parametrize("pooling", ["mean", "recency"])
def test_a_mean_does_not_look_at_times(pooling: str) -> None:
    built = towers(tower_spec(pooling=pooling))
    age_s = torch.rand(4, 4) * 1e6
    assert torch.equal(built.user(HISTORIES, no_features(4), age_s), built.user(HISTORIES, no_features(4)))


def test_both_towers_in_one_module_are_the_two_alone() -> None:
    built = towers(tower_spec(SOME_FEATURES, SOME_FEATURES))
    features, hidden = some_features(4), torch.tensor([False, True, False, False])
    users, items = built(HISTORIES, features, ALL[:4], features, hidden)
    assert torch.equal(users, built.user(HISTORIES, features))
    assert torch.equal(items, built.item(ALL[:4], features, hidden))


def test_an_untrained_tower_starts_with_rows_of_about_unit_length_and_says_nothing_of_the_unknown() -> None:
    torch.manual_seed(0)
    built = TwoTower(tower_spec(SOME_FEATURES, SOME_FEATURES, dim=256))
    assert built.user.history is not None
    tables = [(built.user.history.weight, 1), *((bag.weight, 2) for bag in built.item.features.bags)]
    for weight, num_zeros in tables:
        assert isinstance(weight, Tensor)
        assert not weight[:num_zeros].any()
        assert weight[num_zeros:].norm(dim=1).tolist() == pytest.approx([1.0] * (len(weight) - num_zeros), abs=0.2)
    assert built.item.ids is not None
    assert built.item.ids.weight.norm(dim=1).tolist() == pytest.approx([1.0] * (NUM_ITEMS + 1), abs=0.2)


def test_items_may_share_the_row_of_their_own_embedding() -> None:
    """With features apart, two items that share a row differ by their features alone."""
    built = towers(tower_spec(shared_id_rows=2), known=tuple(range(NUM_ITEMS)))
    assert built.item.ids is not None
    assert built.user.history is not None
    assert (len(built.item.ids.weight), len(built.user.history.weight)) == (3, 3)
    row_of = torch.tensor([0, 1, 1, 1, 0, 1])
    for tower in (built.user, built.item):
        tower.id_row.copy_(row_of)
    items = items_of(built)
    users = users_of(built, *([item] for item in range(NUM_ITEMS)))
    for vectors in (items, users):
        assert [int((vectors - vector).abs().sum(1).argmin()) for vector in vectors] == [0, 1, 1, 1, 0, 1]


def test_each_item_has_a_row_of_its_own_by_default() -> None:
    built = towers(tower_spec())
    assert built.item.id_row.tolist() == built.user.id_row.tolist() == list(range(NUM_ITEMS))
