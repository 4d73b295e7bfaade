"""The user tower and the item tower: inputs to unit vectors of one length."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycl.model.inputs import FeatureRows
from raycl.model.spec import FeatureSizes, TowerSpec


class FeatureBlock(nn.Module):
    """Sum over features of the mean embedding of their tokens, plus a linear map of the numbers."""

    def __init__(self, sizes: FeatureSizes, dim: int) -> None:
        super().__init__()
        bags = [nn.EmbeddingBag(num_tokens, dim, mode="mean", padding_idx=0) for num_tokens in sizes.bag_tokens]
        for bag in bags:
            _small(bag.weight)
        self.bags = nn.ModuleList(bags)
        self.numbers = nn.Linear(sizes.num_numbers, dim, bias=False) if sizes.num_numbers else None

    def forward(self, rows: FeatureRows) -> Tensor | None:
        """(rows, dim), or None where there are no features."""
        parts = [bag(tokens) for bag, tokens in zip(self.bags, rows.tokens, strict=True)]
        if self.numbers is not None:
            parts.append(self.numbers(rows.numbers))
        return torch.stack(parts).sum(0) if parts else None


class Head(nn.Module):
    """Residual layers, then unit length."""

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        dim = spec.model.dim
        layers: list[nn.Module] = []
        for hidden in spec.model.hidden:
            layers.append(
                nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(spec.model.dropout), nn.Linear(hidden, dim))
            )
        self.layers = nn.ModuleList(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """(rows, dim) to unit vectors (rows, dim)."""
        for layer in self.layers:
            inputs = inputs + layer(inputs)
        return F.normalize(inputs.float(), dim=-1)


class ItemTower(nn.Module):
    """An item's own embedding, where training has seen it, and its features."""

    known: Tensor

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self.ids = nn.Embedding(spec.num_items + 1, spec.model.dim) if spec.model.item_id else None
        self.features = FeatureBlock(spec.items, spec.model.dim)
        self.head = Head(spec)
        self.register_buffer("known", torch.zeros(spec.num_items, dtype=torch.bool))
        if self.ids is not None:
            _small(self.ids.weight)

    def forward(self, items: Tensor, features: FeatureRows, hidden: Tensor | None = None) -> Tensor:
        """Unit vectors (rows, dim) of the vocabulary rows ``items``, with their ``features``.

        An item that training has not seen, or that ``hidden`` (rows,) marks, takes the shared embedding of the unknown.
        """
        inputs = self.features(features)
        if self.ids is not None:
            seen = self.known[items] if hidden is None else self.known[items] & ~hidden
            own = self.ids(torch.where(seen, items + 1, 0))
            inputs = own if inputs is None else own + inputs
        vectors: Tensor = self.head(inputs)
        return vectors


class UserTower(nn.Module):
    """What a user did, newest first, and what is known of the user."""

    known: Tensor

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self.max_history = spec.max_history
        self.history = nn.EmbeddingBag(spec.num_items + 1, spec.model.dim, mode="sum", padding_idx=0)
        self.empty = nn.Parameter(torch.zeros(spec.model.dim))
        recency = spec.model.pooling == "recency"
        self.recency = nn.Parameter(torch.zeros(spec.max_history)) if recency else None
        self.features = FeatureBlock(spec.users, spec.model.dim)
        self.head = Head(spec)
        self.register_buffer("known", torch.zeros(spec.num_items, dtype=torch.bool))
        _small(self.history.weight)
        nn.init.normal_(self.empty, std=spec.model.dim**-0.5)

    def forward(self, history: Tensor, features: FeatureRows) -> Tensor:
        """Unit vectors (rows, dim) of users with these histories: vocabulary rows (rows, max_history), -1 for none.

        Items that training has not seen are passed over; a history without any other takes a vector of its own.
        """
        present = (history >= 0) & self.known[history.clamp(min=0)]
        tokens = torch.where(present, history + 1, 0)
        weights = present.float()
        if self.recency is not None:
            weights = weights * self.recency[: history.shape[1]].exp()
        total = weights.sum(1, keepdim=True)
        pooled = self.history(tokens, per_sample_weights=weights / total.clamp(min=1e-9))
        inputs = torch.where(total > 0, pooled, self.empty)
        described = self.features(features)
        vectors: Tensor = self.head(inputs if described is None else inputs + described)
        return vectors


class TwoTower(nn.Module):
    """Both towers as one module, so that one backward pass reaches both."""

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self.user = UserTower(spec)
        self.item = ItemTower(spec)

    def forward(
        self, history: Tensor, users: FeatureRows, items: Tensor, features: FeatureRows, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """User vectors (rows, dim) and the vectors (rows, dim) of their items."""
        return self.user(history, users), self.item(items, features, hidden)


def _small(weight: Tensor) -> None:
    """Rows of about unit length; the padding row stays zero."""
    with torch.no_grad():
        padding = weight[0].clone()
        nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        if not padding.any():
            weight[0] = padding
