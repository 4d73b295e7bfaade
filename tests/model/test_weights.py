"""Towers on storage: they come back as they were, or are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch as st
import torch

from raycl.errors import CorruptRelease
from raycl.model import weights
from raycl.model.towers import ItemTower
from raycl.storage.store import Store
from tests.model.builders import NUM_ITEMS, SOME_FEATURES, some_features, tower_spec, towers

SPEC = tower_spec(SOME_FEATURES, SOME_FEATURES, pooling="recency", dropout=0.5)
HISTORY = torch.tensor([[0, 1, -1, -1], [-1, -1, -1, -1]])


@pytest.fixture
def saved(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    weights.save(store, SPEC, towers(SPEC), some_features(NUM_ITEMS))
    return store


def test_towers_come_back_as_they_were_and_ready_to_answer(saved: Store) -> None:
    built, features = towers(SPEC), some_features(2)
    user, item = weights.load_user(saved), weights.load_item(saved)
    assert not user.training
    assert not item.training
    assert torch.equal(user(HISTORY, features), built.user(HISTORY, features))
    assert torch.equal(item(torch.tensor([3, 5]), features), built.item(torch.tensor([3, 5]), features))
    assert isinstance(item, ItemTower)
    assert item.known.tolist() == [True] * 4 + [False] * 2
    assert weights.load_spec(saved) == SPEC


def test_loading_draws_no_random_numbers(saved: Store) -> None:
    before = torch.get_rng_state()
    weights.load_item(saved)
    weights.load_user(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_item_tower_is_named_by_the_bytes_that_it_was_read_from(saved: Store) -> None:
    """The next file of weights has another name, whatever its manifest would say."""
    tower, name = weights.load_item_named(saved)
    assert name == hashlib.sha256(saved.read(weights.ITEM_FILE)).hexdigest()
    other = tower.state_dict() | {"known": torch.zeros(6, dtype=torch.bool)}
    saved.write(weights.ITEM_FILE, st.save(other))
    assert weights.load_item_named(saved)[1] == saved.sha256(weights.ITEM_FILE) != name


def test_towers_are_saved_from_training_without_being_changed(tmp_path: Path) -> None:
    built = towers(SPEC).train()
    weights.save(Store(str(tmp_path)), SPEC, built, some_features(NUM_ITEMS))
    assert built.training
    assert all(parameter.requires_grad for parameter in built.parameters())


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
@pytest.mark.parametrize("path", [weights.USER_FILE, weights.ITEM_FILE])
def test_a_damaged_file_of_weights_is_refused_by_name(saved: Store, path: str, content: bytes | None) -> None:
    whole = saved.read(path)
    saved.write(path, whole[: len(whole) // 2] if content is None else content)
    load = weights.load_user if path == weights.USER_FILE else weights.load_item
    with pytest.raises(CorruptRelease, match=f"{path} does not fit {weights.CONFIG_FILE}"):
        load(saved)


def test_weights_of_another_shape_are_refused(saved: Store) -> None:
    saved.write(weights.CONFIG_FILE, tower_spec(SOME_FEATURES, SOME_FEATURES, pooling="recency", dim=4).to_json())
    with pytest.raises(CorruptRelease, match=r"user\.safetensors does not fit"):
        weights.load_user(saved)
    with pytest.raises(CorruptRelease, match=r"item\.safetensors does not fit"):
        weights.load_item(saved)


def test_weights_with_a_tensor_missing_or_too_many_are_refused(saved: Store) -> None:
    tensors = st.load(saved.read(weights.USER_FILE))
    for changed in ({key: tensors[key] for key in tensors if key != "empty"}, tensors | {"other": torch.zeros(1)}):
        saved.write(weights.USER_FILE, st.save(changed))
        with pytest.raises(CorruptRelease):
            weights.load_user(saved)


def test_weights_of_another_type_are_refused(saved: Store) -> None:
    tensors = st.load(saved.read(weights.USER_FILE))
    saved.write(weights.USER_FILE, st.save(tensors | {"empty": tensors["empty"].half()}))
    with pytest.raises(CorruptRelease, match=r"empty is of torch\.float16 in place of torch\.float32"):
        weights.load_user(saved)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"num_items": 1', b"\xff"])
def test_a_damaged_shape_is_refused(saved: Store, content: bytes) -> None:
    saved.write(weights.CONFIG_FILE, content)
    with pytest.raises(CorruptRelease, match=r"config\.json is not the shape of two towers"):
        weights.load_user(saved)
