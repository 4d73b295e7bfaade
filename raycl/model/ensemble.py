"""Several pairs of towers as one: vectors side by side, so that a dot product is the mean of the members' cosines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from raycl.model.inputs import FeatureRows
from raycl.model.spec import TowerSpec
from raycl.model.towers import ItemTower, UserTower

_MEMBERS = "members"


class UserEnsemble(nn.Module):
    """User towers that read the same states: a unit vector of all their dimensions together."""

    def __init__(self, specs: Sequence[TowerSpec]) -> None:
        super().__init__()
        self.members = nn.ModuleList(UserTower(spec) for spec in specs)
        self.context_sizes = specs[0].context
        self.max_history = specs[0].max_history
        self.dim = sum(spec.model.dim for spec in specs)

    def forward(
        self, history: Tensor, features: FeatureRows, age_s: Tensor | None = None, context: FeatureRows | None = None
    ) -> Tensor:
        """``UserTower.forward`` of each, side by side, over the square root of their number."""
        return _side_by_side([member(history, features, age_s, context) for member in self.members])


class ItemEnsemble(nn.Module):
    """Item towers of the same catalogue: a unit vector of all their dimensions together."""

    def __init__(self, specs: Sequence[TowerSpec]) -> None:
        super().__init__()
        self.members = nn.ModuleList(ItemTower(spec) for spec in specs)

    def forward(self, items: Tensor, features: FeatureRows, hidden: Tensor | None = None) -> Tensor:
        """``ItemTower.forward`` of each, side by side, over the square root of their number."""
        return _side_by_side([member(items, features, hidden) for member in self.members])


AnyUserTower = UserTower | UserEnsemble
AnyItemTower = ItemTower | ItemEnsemble


def to_json(specs: Sequence[TowerSpec]) -> bytes:
    """The shape of the whole, which ``TowerSpec.from_json`` reads, with those of its members, for ``members_of``."""
    dim = sum(spec.model.dim for spec in specs)
    whole = replace(specs[0], model=specs[0].model.model_copy(update={"dim": dim}))
    members = [json.loads(spec.to_json()) for spec in specs]
    return json.dumps({**json.loads(whole.to_json()), _MEMBERS: members}, indent=2).encode()


def members_of(content: bytes) -> list[TowerSpec]:
    """The shapes of the members; one for towers that are no ensemble. ValueError, KeyError, TypeError for others."""
    plain = json.loads(content)
    return [TowerSpec.from_json(json.dumps(one).encode()) for one in plain.get(_MEMBERS, [plain])]


def together(weights: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The weights of an ensemble, of those of its members."""
    return {f"members.{place}.{name}": value for place, one in enumerate(weights) for name, value in one.items()}


def _side_by_side(vectors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(vectors), dim=-1) / math.sqrt(len(vectors))
