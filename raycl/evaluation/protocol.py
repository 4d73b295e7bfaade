"""What a result was measured by: part of every result, and what two results must share to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from raycl.config import Config, PairRules
from raycl.errors import InputError
from raycl.storage.versions import fingerprint

TIES = "of equal scores the lower vocabulary row first"
MASKS = "items of the user's own context are no candidates, and no targets"
NO_MASKS = "none; items of the user's own context are candidates, and targets where they come again"
STATE = "the user before the first held-out event, as pairs.history and pairs.max_history make it"
SCORES = "inner products in float32"


@dataclass(frozen=True)
class Protocol:
    """The fields that a reader needs to repeat the measurement; all are plain values."""

    pairs: str
    """Fingerprint of the pairs: input, rules and split"""
    split: dict[str, Any]
    part: str
    candidates: str
    masks: str
    state: str
    scores: str
    ties: str
    ks: list[int]
    metrics: list[str]
    segments: dict[str, Any]

    @classmethod
    def of(cls, config: Config, rules: PairRules, pairs: str, num_items: int, metrics: list[str]) -> Self:
        """The protocol of an evaluation of this config on pairs with this fingerprint."""
        chosen = config.evaluation
        return cls(
            pairs=pairs,
            split=rules.split.model_dump(mode="json"),
            part=chosen.part,
            candidates=f"full catalogue of {num_items:,} items",
            masks=MASKS if chosen.exclude_met else NO_MASKS,
            state=STATE,
            scores=SCORES,
            ties=TIES,
            ks=list(chosen.ks),
            metrics=metrics,
            segments=chosen.model_dump(
                mode="json", include={"popularity_cuts", "new_below", "user_columns", "item_columns", "calibration"}
            ),
        )

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``; TypeError where it is of another raycl."""
        return cls(**plain)

    def to_json(self) -> dict[str, Any]:
        """Plain values by field."""
        return asdict(self)

    @property
    def name(self) -> str:
        """A short name: two results of one name were measured alike."""
        return f"full-catalogue/{self.split['kind']}/{self.part}/{fingerprint(self.to_json())[:8]}"

    def lines(self) -> list[str]:
        """What a person reads, a line a field."""
        return [f"protocol {self.name}", *(f"  {key}: {_plain(value)}" for key, value in self.to_json().items())]


def require_same(first: Protocol, second: Protocol) -> None:
    """InputError that names the fields in which two protocols differ, with both values."""
    differing = [field.name for field in fields(Protocol) if getattr(first, field.name) != getattr(second, field.name)]
    if differing:
        both = [[_plain(getattr(one, name)) for one in (first, second)] for name in differing]
        told = "; ".join(f"{name}: {left} and {right}" for name, (left, right) in zip(differing, both, strict=True))
        raise InputError(
            f"{first.name} and {second.name} are measured by different protocols and cannot be compared ({told}):"
            f" evaluate both with the same pairs and the same evaluation section"
        )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_plain(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
