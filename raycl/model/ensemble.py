"""Several pairs of towers as one: their vectors side by side, or the mean of them.

Side by side, a dot product is the mean of the members' cosines. A mean needs spaces that agree: each member's is turned
so that its items lie as near those of the first as they can.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycl.model.inputs import FeatureRows
from raycl.model.spec import TowerSpec
from raycl.model.towers import ItemTower, UserTower

_MEMBERS, _AVERAGED = "members", "averaged"


@dataclass(frozen=True)
class Shape:
    """The members' shapes, and whether their vectors are averaged; plain towers are one member."""

    members: tuple[TowerSpec, ...]
    averaged: bool = False

    @property
    def dim(self) -> int:
        """Length of the vectors of the whole."""
        return self.members[0].model.dim if self.averaged else sum(spec.model.dim for spec in self.members)

    def to_json(self) -> bytes:
        """What ``from_json`` reads back, and ``TowerSpec.from_json`` as the shape of the whole."""
        model = self.members[0].model.model_copy(update={"dim": self.dim})
        whole = json.loads(replace(self.members[0], model=model).to_json())
        members = [json.loads(spec.to_json()) for spec in self.members]
        return json.dumps({**whole, _MEMBERS: members, _AVERAGED: self.averaged}, indent=2).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Of towers that are no ensemble too; ValueError, KeyError or TypeError for what is no shape."""
        plain = json.loads(content)
        members = tuple(TowerSpec.from_json(json.dumps(one).encode()) for one in plain.get(_MEMBERS, [plain]))
        return cls(members, bool(plain.get(_AVERAGED, False)))


class _Combined(nn.Module):
    """Vectors of all members to one unit vector."""

    rotations: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.averaged = shape.averaged
        if shape.averaged:
            self.register_buffer("rotations", torch.zeros(len(shape.members), shape.dim, shape.dim))

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """One (rows, dim) tensor a member to (rows, dim) of the whole."""
        if not self.averaged:
            return torch.cat(list(vectors), dim=-1) / math.sqrt(len(vectors))
        return F.normalize(torch.einsum("mrd,mde->re", torch.stack(list(vectors)), self.rotations), dim=-1)


class UserEnsemble(nn.Module):
    """User towers that read the same states."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.members = nn.ModuleList(UserTower(spec) for spec in shape.members)
        self.combined = _Combined(shape)
        self.context_sizes = shape.members[0].context
        self.max_history = shape.members[0].max_history
        self.dim = shape.dim

    def forward(
        self, history: Tensor, features: FeatureRows, age_s: Tensor | None = None, context: FeatureRows | None = None
    ) -> Tensor:
        """Unit vectors (rows, dim), of what ``UserTower.forward`` of each member returns."""
        vectors: Tensor = self.combined([member(history, features, age_s, context) for member in self.members])
        return vectors


class ItemEnsemble(nn.Module):
    """Item towers of the same catalogue."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.members = nn.ModuleList(ItemTower(spec) for spec in shape.members)
        self.combined = _Combined(shape)

    def forward(self, items: Tensor, features: FeatureRows, hidden: Tensor | None = None) -> Tensor:
        """Unit vectors (rows, dim), of what ``ItemTower.forward`` of each member returns."""
        vectors: Tensor = self.combined([member(items, features, hidden) for member in self.members])
        return vectors


AnyUserTower = UserTower | UserEnsemble
AnyItemTower = ItemTower | ItemEnsemble


def rotations(items: Sequence[Tensor]) -> Tensor:
    """By member, the rotation (dim, dim) that brings its vectors of all items (items, dim) nearest to the first's.

    The orthogonal Procrustes problem (Schönemann 1966).
    """
    found = []
    for vectors in items:
        left, _, right = torch.linalg.svd(vectors.double().T @ items[0].double())
        found.append((left @ right).float())
    return torch.stack(found)


def together(weights: Sequence[dict[str, Tensor]], turned: Tensor | None) -> dict[str, Tensor]:
    """The weights of an ensemble, of those of its members and, for an average, of ``rotations``."""
    found = {f"members.{place}.{name}": value for place, one in enumerate(weights) for name, value in one.items()}
    return found if turned is None else {**found, "combined.rotations": turned}
