"""Histories read as the item tower reads items: in training, and in the user tower that is saved and served alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from raycl.model import embed, weights
from raycl.model.inputs import FeatureRows
from raycl.model.spec import FeatureSizes
from raycl.model.towers import TwoTower
from raycl.storage.store import Store
from tests.model.builders import NUM_ITEMS, POOLINGS, SOME_FEATURES, no_features, some_features, tower_spec, towers

ALL = torch.arange(NUM_ITEMS)
HISTORIES = torch.tensor([[0, 1, 2, 3], [2, -1, -1, -1], [-1, -1, -1, -1], [5, 4, 5, -1]])
AGES = torch.tensor([[3.0, 50.0, 900.0, 1e6], [10.0, -1, -1, -1], [-1.0] * 4, [60.0, 3_600.0, 1e5, -1.0]])
CATALOGUE, USERS = some_features(NUM_ITEMS, seed=3), some_features(4, seed=4)


def shared(**model: Any) -> TwoTower:
    return towers(tower_spec(SOME_FEATURES, SOME_FEATURES, share_items=True, **model))


def users_of(built: TwoTower, catalogue: FeatureRows = CATALOGUE, age_s: Tensor | None = AGES) -> Tensor:
    users: Tensor = built(HISTORIES, USERS, ALL[:4], CATALOGUE.take(ALL[:4]), None, age_s, None, catalogue)[0]
    return users


def test_an_event_is_what_the_item_tower_reads_of_its_item() -> None:
    built = shared(hidden=())
    items = built.item.represent(ALL, built.user.known, CATALOGUE)
    described = built.user.features(USERS)
    assert described is not None
    pooled = [items[:4].mean(0), items[2], built.user.empty, (2 * items[5] + items[4]) / 3]
    assert torch.allclose(users_of(built), normalize(torch.stack(pooled) + described, dim=-1), atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("item_id", [True, False])
@pytest.mark.parametrize("shared_id_rows", [None, 2])
def test_the_user_tower_alone_answers_as_both_do(
    pooling: str, item_id: bool, shared_id_rows: int | None, tmp_path: Path
) -> None:
    spec = tower_spec(
        SOME_FEATURES, SOME_FEATURES, share_items=True, pooling=pooling, item_id=item_id, shared_id_rows=shared_id_rows
    )
    built = towers(spec)
    expected = users_of(built)
    weights.save(Store(str(tmp_path)), spec, built, CATALOGUE)
    alone = weights.load_user(Store(str(tmp_path)))
    assert torch.allclose(alone(HISTORIES, USERS, AGES), expected, atol=1e-6)
    assert torch.allclose(built.user_alone(CATALOGUE)(HISTORIES, USERS, AGES), expected, atol=1e-6)
    rows = torch.arange(4, dtype=torch.int32).numpy()
    found = embed.users(alone, HISTORIES.int().numpy(), rows, USERS, AGES.numpy())
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-6)
    item = weights.load_item(Store(str(tmp_path)))
    assert torch.equal(item(ALL, CATALOGUE), built.item(ALL, CATALOGUE))


def test_a_cold_item_in_a_history_says_what_its_features_say() -> None:
    built = shared()
    assert not built.user.known[[4, 5]].any()
    found = users_of(built)
    assert not torch.allclose(found[3], found[2], atol=1e-3)
    other = FeatureRows(CATALOGUE.tokens, CATALOGUE.numbers.clone(), CATALOGUE.vectors)
    other.numbers[5] = 5.0
    moved = users_of(built, other)
    assert [torch.allclose(one, two) for one, two in zip(found, moved, strict=True)] == [True, True, True, False]
    assert torch.allclose(built.user_alone(other)(HISTORIES, USERS, AGES), moved, atol=1e-6)


def test_a_history_teaches_the_item_tower_and_no_table_beside_it() -> None:
    built = shared().train()
    assert built.user.history is None
    torch.autograd.backward(users_of(built).square()[:, 0].sum())
    assert built.item.ids is not None
    gradient = built.item.ids.weight.grad
    assert gradient is not None
    # Row 0 is the unknown, which the cold items 4 and 5 are; 0 to 3 are known.
    assert [bool(row.any()) for row in gradient.to_dense()] == [True] * 5 + [False] * 2
    assert len({id(parameter) for parameter in built.parameters()}) == len(built.state_dict()) - 4  # known and id_row


def test_each_parameter_has_a_gradient_after_a_step() -> None:
    """DDP waits for the gradient of each."""
    for pooling in POOLINGS:
        built = shared(pooling=pooling).train()
        users, items = built(HISTORIES, USERS, ALL[:4], CATALOGUE.take(ALL[:4]), catalogue=CATALOGUE)
        (users @ items.T).square().sum().backward()
        assert [name for name, parameter in built.named_parameters() if parameter.grad is None] == []


def test_making_the_tower_that_is_served_changes_nothing_of_the_training() -> None:
    built = shared(feature_dropout=0.5, dropout=0.5).train()
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    alone = built.user_alone(CATALOGUE)
    assert torch.equal(torch.rand(3), expected)
    assert all(module.training for module in built.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())
    assert torch.equal(alone.eval()(HISTORIES, USERS, AGES), built.user_alone(CATALOGUE).eval()(HISTORIES, USERS, AGES))


def test_towers_that_share_nothing_are_served_as_they_are() -> None:
    built = towers(tower_spec())
    assert built.user_alone(no_features(NUM_ITEMS)) is built.user


@pytest.mark.parametrize("pooling", POOLINGS)
def test_under_bfloat16_a_shared_history_is_close_to_itself(pooling: str) -> None:
    built = shared(pooling=pooling)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = users_of(built)
    assert (rounded * users_of(built)).sum(1).min() > 0.99


def test_under_bfloat16_items_of_numbers_alone_can_be_shared() -> None:
    """Where there is no table, all that is read of an item comes out as bfloat16."""
    built = towers(tower_spec(FeatureSizes((), 2), share_items=True, item_id=False))
    catalogue = FeatureRows((), CATALOGUE.numbers)
    with torch.autocast("cpu", torch.bfloat16):
        assert built.item.represent(ALL, built.user.known, catalogue).dtype is torch.bfloat16
        users, _ = built(HISTORIES, no_features(4), ALL[:4], catalogue.take(ALL[:4]), catalogue=catalogue)
    assert (users * built.user_alone(catalogue)(HISTORIES, no_features(4))).sum(1).min() > 0.99
