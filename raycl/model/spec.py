"""The sizes that fix a pair of towers: enough to build them empty and load their weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from raycl.config import ModelConfig
from raycl.data.features import Encoders


@dataclass(frozen=True)
class FeatureSizes:
    """Tokens of each bag feature, in order, how many numeric features there are, and the length of each vector."""

    bag_tokens: tuple[int, ...]
    num_numbers: int
    vector_lengths: tuple[int, ...] = ()

    @classmethod
    def of(cls, encoders: Encoders) -> Self:
        """The sizes that these fitted features need."""
        return cls(
            tuple(bag.num_tokens for bag in encoders.bags),
            len(encoders.numerics),
            tuple(vector.length for vector in encoders.vectors),
        )


@dataclass(frozen=True)
class TowerSpec:
    """Both towers' shape."""

    num_items: int
    max_history: int
    items: FeatureSizes
    users: FeatureSizes
    model: ModelConfig
    shared_id_rows: int | None = None
    """Rows that the items' own embeddings share; None where each item has its own."""
    context: FeatureSizes = FeatureSizes((), 0)
    """Features of a request."""

    @property
    def num_id_rows(self) -> int:
        """Rows of a table of items' own embeddings, that of the unknown left out."""
        return self.num_items if self.shared_id_rows is None else self.shared_id_rows

    def to_json(self) -> bytes:
        """Indented JSON that ``from_json`` reads back."""
        plain = {**asdict(self), "model": self.model.model_dump(mode="json")}
        return json.dumps(plain, indent=2).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """The inverse of ``to_json``."""
        plain: dict[str, Any] = json.loads(content)
        sizes = {
            side: FeatureSizes(
                tuple(plain[side]["bag_tokens"]), plain[side]["num_numbers"], tuple(plain[side]["vector_lengths"])
            )
            for side in ("items", "users", "context")
        }
        return cls(
            plain["num_items"],
            plain["max_history"],
            sizes["items"],
            sizes["users"],
            ModelConfig(**plain["model"]),
            plain["shared_id_rows"],
            sizes["context"],
        )
