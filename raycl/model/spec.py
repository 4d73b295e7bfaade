"""The sizes that fix a pair of towers: enough to build them empty and load their weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from raycl.config import ModelConfig
from raycl.data.features import Encoders


@dataclass(frozen=True)
class FeatureSizes:
    """Tokens of each bag feature, in order, and how many numeric features there are."""

    bag_tokens: tuple[int, ...]
    num_numbers: int

    @classmethod
    def of(cls, encoders: Encoders) -> Self:
        """The sizes that these fitted features need."""
        return cls(tuple(bag.num_tokens for bag in encoders.bags), len(encoders.numerics))


@dataclass(frozen=True)
class TowerSpec:
    """Both towers' shape."""

    num_items: int
    max_history: int
    items: FeatureSizes
    users: FeatureSizes
    model: ModelConfig

    def to_json(self) -> bytes:
        """Indented JSON that ``from_json`` reads back."""
        plain = {**asdict(self), "model": self.model.model_dump(mode="json")}
        return json.dumps(plain, indent=2).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """The inverse of ``to_json``."""
        plain: dict[str, Any] = json.loads(content)
        sizes = {
            side: FeatureSizes(tuple(plain[side]["bag_tokens"]), plain[side]["num_numbers"])
            for side in ("items", "users")
        }
        return cls(
            plain["num_items"], plain["max_history"], sizes["items"], sizes["users"], ModelConfig(**plain["model"])
        )
