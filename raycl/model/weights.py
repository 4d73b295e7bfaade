"""Trained towers on storage: ``user.safetensors``, ``item.safetensors`` and the ``config.json`` that builds them."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import safetensors.torch as st
from safetensors import SafetensorError
from torch import nn

from raycl.errors import CorruptRelease
from raycl.model.ensemble import AnyItemTower, AnyUserTower, ItemEnsemble, Shape, UserEnsemble
from raycl.model.inputs import FeatureRows
from raycl.model.spec import TowerSpec
from raycl.model.towers import ItemTower, TwoTower, UserTower
from raycl.storage.store import Store

USER_FILE = "user.safetensors"
ITEM_FILE = "item.safetensors"
CONFIG_FILE = "config.json"

Tower = TypeVar("Tower", bound=nn.Module)


def save(store: Store, spec: TowerSpec, towers: TwoTower, catalogue: FeatureRows) -> None:
    """Write both towers and their shape; each answers without the other, whatever they share in training.

    ``catalogue``: the features of every item, on the towers' device.
    """
    store.write(CONFIG_FILE, spec.to_json())
    for path, tower in ((USER_FILE, towers.user_alone(catalogue)), (ITEM_FILE, towers.item)):
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in tower.state_dict().items()}
        store.write(path, st.save(weights))


def load_spec(store: Store) -> TowerSpec:
    """The shape of the towers under ``store``, of an ensemble as a whole; CorruptRelease where the file holds none."""
    return _shapes(store)[0]


def load_shape(store: Store) -> Shape:
    """The shapes of the members of an ensemble, or of plain towers; CorruptRelease where the file holds none."""
    return _shapes(store)[1]


def load_user(store: Store) -> AnyUserTower:
    """The user tower, ready to answer; CorruptRelease where weights and shape disagree."""
    shape = load_shape(store)
    tower = UserTower(shape.members[0]) if len(shape.members) == 1 else UserEnsemble(shape)
    return _filled(store, USER_FILE, tower, store.read(USER_FILE))


def load_item(store: Store) -> AnyItemTower:
    """The item tower, ready to embed; CorruptRelease where weights and shape disagree."""
    return load_item_named(store)[0]


def load_item_named(store: Store) -> tuple[AnyItemTower, str]:
    """``load_item``, and the SHA-256 of the very bytes that its weights were read from."""
    content, shape = store.read(ITEM_FILE), load_shape(store)
    tower = ItemTower(shape.members[0]) if len(shape.members) == 1 else ItemEnsemble(shape)
    return _filled(store, ITEM_FILE, tower, content), hashlib.sha256(content).hexdigest()


def _shapes(store: Store) -> tuple[TowerSpec, Shape]:
    """The shape of the whole, and those of its members."""
    content = store.read(CONFIG_FILE)
    try:
        return TowerSpec.from_json(content), Shape.from_json(content)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRelease(f"{store.uri}/{CONFIG_FILE} is not the shape of two towers: {error}") from error


def _filled(store: Store, path: str, tower: Tower, content: bytes) -> Tower:
    try:
        tower.load_state_dict(st.load(content))
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise CorruptRelease(f"{store.uri}/{path} does not fit {CONFIG_FILE} beside it: {error}") from error
    return tower.eval()
