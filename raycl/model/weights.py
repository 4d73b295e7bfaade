"""Trained towers on storage: ``user.safetensors``, ``item.safetensors`` and the ``config.json`` that builds them."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import safetensors.torch as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from raycl.errors import CorruptRelease
from raycl.model import tensors
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
    """The user tower, ready to answer; CorruptRelease where weights and shape disagree.

    Its weights share one memory: it is to be used here, and neither sent nor trained.
    """
    shape = load_shape(store)
    with _Undrawn():
        tower = UserTower(shape.members[0]) if len(shape.members) == 1 else UserEnsemble(shape)
    return _filled(store, USER_FILE, tower, tensors.read(store, USER_FILE))


def load_item(store: Store) -> AnyItemTower:
    """The item tower, ready to embed; CorruptRelease where weights and shape disagree.

    Its weights share one memory: it is to be used here, and neither sent nor trained.
    """
    return load_item_named(store)[0]


def load_item_named(store: Store) -> tuple[AnyItemTower, str]:
    """``load_item``, and the SHA-256 of the very bytes that its weights were read from."""
    content, shape = tensors.read(store, ITEM_FILE), load_shape(store)
    with _Undrawn():
        tower = ItemTower(shape.members[0]) if len(shape.members) == 1 else ItemEnsemble(shape)
    return _filled(store, ITEM_FILE, tower, content), hashlib.sha256(content.numpy().data).hexdigest()


def _shapes(store: Store) -> tuple[TowerSpec, Shape]:
    """The shape of the whole, and those of its members."""
    content = store.read(CONFIG_FILE)
    try:
        return TowerSpec.from_json(content), Shape.from_json(content)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRelease(f"{store.uri}/{CONFIG_FILE} is not the shape of two towers: {error}") from error


class _Undrawn(TorchFunctionMode):
    """Modules made under it draw no first weights; those of a long table would take seconds.

    The first modules on the device "meta", which has no weights at all, cost a process more: 1.4 s of imports.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return kwargs["tensor"] if getattr(func, "__module__", None) == "torch.nn.init" else func(*args, **kwargs)


def _filled(store: Store, path: str, tower: Tower, content: Tensor) -> Tower:
    """``tower``, whose weights are from now on those of ``content``, the file ``path``, and lie where it lies."""
    try:
        found = tensors.views(content)
        for name, tensor in tower.state_dict().items():
            if found.get(name, tensor).dtype != tensor.dtype:
                raise ValueError(f"{name} is of {found[name].dtype} in place of {tensor.dtype}")
        tower.load_state_dict(found, assign=True)
    except (RuntimeError, ValueError) as error:
        raise CorruptRelease(f"{store.uri}/{path} does not fit {CONFIG_FILE} beside it: {error}") from error
    return tower.eval()
