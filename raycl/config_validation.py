"""What is measured while training, and what it decides: how the rate falls, when training ends, which towers stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from raycl.config_values import Count, HeldShare, Positive, Section

if TYPE_CHECKING:
    from raycl.config import Split, TrainConfig

Gain = Annotated[float, Field(ge=0.0, lt=1.0)]


class Validation(Section):
    """Recall and NDCG over the full catalogue on the validation part, at the end of each epoch."""

    users: Count = 20_000
    """Held-out users at most, the same ones each time; 0 measures nothing."""
    k: Positive = 20
    """Length of the lists that recall and NDCG look at."""
    steps: Positive | None = None
    """Measure every so many steps of an epoch too, for epochs that take hours."""


class EarlyStop(Section):
    """End training once validations no longer gain."""

    patience: Positive = 3
    """Validations in a row without a gain."""
    min_gain: Gain = 0.0
    """A gain is a recall of more than this above that of the last gain."""


class Cosine(Section):
    """Falls as a half cosine to 1 %."""

    kind: Literal["cosine"]


class Linear(Section):
    """Falls in a straight line to 1 %."""

    kind: Literal["linear"]


class Constant(Section):
    """Stays."""

    kind: Literal["constant"]


class Plateau(Section):
    """Stays while validations gain, and is multiplied by ``factor`` after ``patience`` that do not; never under 1 %."""

    kind: Literal["plateau"]
    factor: HeldShare = 0.5
    patience: Positive = 2
    min_gain: Gain = 0.0
    """A gain is a recall of more than this above that of the last gain."""


def _to_section(value: Any) -> Any:
    """A name alone is the schedule of that kind."""
    return {"kind": value} if isinstance(value, str) else value


Schedule = Annotated[
    Annotated[Cosine | Linear | Constant | Plateau, Field(discriminator="kind")], BeforeValidator(_to_section)
]


def needed_by(train: TrainConfig) -> str | None:
    """The field that was set to something which only validations decide, as ``train.keep=best``; None without."""
    if train.keep == "best":
        return "train.keep=best"
    if train.early_stop is not None:
        return f"train.early_stop.patience={train.early_stop.patience}"
    return "train.schedule=plateau" if isinstance(train.schedule, Plateau) else None


def without_part(split: Split) -> str | None:
    """The setting of a split that leaves no validation part, with its remedy; None where it may have one."""
    if split.kind == "leave_last_n" and split.num_val == 0:
        return "pairs.split.num_val=0 makes none: raise it"
    if split.kind == "column" and split.train_on_val:
        return "pairs.split.train_on_val=true makes none: set it to false"
    return None
