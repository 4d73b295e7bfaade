"""Which fields of the config a search tries, how often, and when it gives a trial up."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from raycl.config_values import Count, Positive, Section

METRIC = r"^(recall|ndcg)_at_[1-9]\d*$"


class Space(Section):
    """The values that one field is drawn from, in exactly one of these ways."""

    choice: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """Any of these values; a list alone is a choice too."""
    uniform: tuple[float, float] | None = None
    """Numbers from the first to the second, evenly."""
    log_uniform: tuple[float, float] | None = None
    """Numbers from the first to the second, evenly in their logarithm: for rates and temperatures."""
    integers: tuple[int, int] | None = None
    """Whole numbers from the first to the second, both included."""
    log_integers: tuple[int, int] | None = None
    """Such numbers, evenly in their logarithm: for sizes."""

    @model_validator(mode="after")
    def _is_one_way(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            told = "none of them is given" if not given else f"{' and '.join(given)} are given"
            raise ValueError(f"write one of {', '.join(type(self).model_fields)}, and {told}")
        if given != ["choice"]:
            low, high = getattr(self, given[0])
            if low >= high:
                raise ValueError(f"{given[0]} goes from {low:g} to {high:g}: write the smaller number first")
            if given[0].startswith("log_") and low <= 0:
                raise ValueError(f"{given[0]} starts at {low:g}, which has no logarithm: start above 0")
        return self


def _to_space(value: Any) -> Any:
    return {"choice": value} if isinstance(value, (list, tuple)) else value


class SearchConfig(Section):
    """What ``raycl tune`` tries: each trial trains towers of this config with its own values of some fields.

    Trials are compared on the validation part, never on test.
    """

    fields: Annotated[dict[str, Annotated[Space, BeforeValidator(_to_space)]], Field(min_length=1)]
    """By dotted path, such as ``model.dim`` or ``loss.terms.0.weight``: what it is drawn from. Any field that shapes
    pairs or towers, but those that say what is measured (``pairs.split``, ``train.validation``)."""
    num_trials: Positive = 20
    """Fewer where the choices have fewer combinations. A larger number later keeps the trials that were made."""
    metric: Annotated[str, Field(pattern=METRIC)] = "recall_at_20"
    """``recall`` or ``ndcg`` of lists as long as ``train.validation.k``, over the full catalogue."""
    grace_epochs: Positive = 1
    """Epochs before a trial may be given up; as many as ``train.epochs`` trains every trial to its end."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """After ``grace_epochs``, and each time that the epochs have grown by this factor, a trial goes on if it is among
    the best one in so many of those that came as far (asynchronous successive halving)."""
    folds: Positive = 1
    """Cross-validation over time, for ``pairs.split.kind: time``: so many validation windows one before the other, each
    with all that was before it to train on. The first is that of the config, and decides who is given up."""
    max_concurrent: Positive | None = None
    """Trials at a time; by default as many as there is room for, each with ``train.threads_per_worker`` CPUs, or a
    GPU."""
    seed: Count = 0
    """Of the draws; ``seed`` of the config is that of every training."""
