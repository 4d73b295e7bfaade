"""The ``evaluation`` section: what is measured, on whom, beside what, and how sure it must be."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raycl.config_values import Count, Name, OneOrMore, Positive, Section, Share

_Some = Field(min_length=1)
BaselineName = Literal["recent_popularity", "item_knn", "rp3beta", "als"]


class BaselineConfig(Section):
    """What towers are measured beside, besides the most popular items, on the same users and by the same evaluator.

    All of them learn from the training events alone and know a user by all items of the context.
    """

    names: tuple[BaselineName, ...] = ("recent_popularity", "item_knn", "rp3beta", "als")
    """``als`` needs the extra of that name, and is left out with a word in the report where that is not installed."""
    most_events: Positive = 20_000_000
    """These baselines learn in one process, and are left out where there are more training events."""
    recent_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Of the training events, the newest ones that make an item popular now."""
    neighbours: Positive = 200
    """Of each item, for item KNN (cosine) and RP3beta."""
    rp3_alpha: Annotated[float, Field(gt=0.0)] = 1.0
    rp3_beta: Annotated[tuple[Annotated[float, Field(ge=0.0)], ...], _Some, OneOrMore] = (0.3, 0.2, 0.6)
    """How much RP3beta holds an item's popularity against it. Of several values, here and in ``als_alpha``, the one is
    taken that best finds events held out of the training part: what is best differs much between logs."""
    als_factors: Positive = 128
    als_regularization: Annotated[float, Field(ge=0.0)] = 0.01
    als_alpha: Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1), OneOrMore] = (
        10.0,
        3.0,
        30.0,
    )
    """Confidence in an event; in what did not happen it is 1."""
    als_iterations: Positive = 15


class EvaluationConfig(Section):
    """What is measured, always over the full catalogue."""

    ks: Annotated[tuple[Positive, ...], Field(min_length=1)] = (10, 20)
    part: Literal["test", "val"] = "test"
    """Choose settings on ``val``, and leave ``test`` for what is published."""
    exclude_met: bool = True
    """Leave out what the user met before, of the candidates and of the targets. False where things are bought again:
    then all are measured, and with true those alone that are met for the first time."""
    use_gpu: Literal["auto", "always", "never"] = "auto"
    """``auto``: rank on the GPUs of the cluster where it has some, one a task."""
    users_per_block: Positive = 512
    """Users that a task ranks together."""
    auc: bool = True
    """The area under the curve too, over the whole catalogue, which costs about as much again as the lists do."""
    popularity_cuts: tuple[Share, Share] = (0.5, 0.8)
    """Items that together have this share of the training events are the head; up to the second share is the middle."""
    new_below: Positive = 5
    """Users with fewer events in their context, and items with fewer in training, are new."""
    user_columns: Annotated[tuple[Name, ...], OneOrMore] = ()
    """Columns of the user table whose values are segments."""
    item_columns: Annotated[tuple[Name, ...], OneOrMore] = ()
    """Columns of the item table whose values are segments of the targets."""
    calibration: Name | None = None
    """Column of the item table, of values or lists of them, whose shares a list should have as the history has them."""
    perturbed_share: Share = 0.2
    """Share of the events of a history that are left out, and then that are exchanged for others, to see how much the
    towers lose; 0 leaves that out."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1_000
    """Of the users, for 95 % bootstrap intervals."""
    seed: Count = 0
    """Of resamples and of exchanged histories."""
    baselines: BaselineConfig = BaselineConfig()

    @model_validator(mode="after")
    def _cuts_ascend(self) -> Self:
        first, second = self.popularity_cuts
        if first > second:
            raise ValueError(f"popularity_cuts=[{first:g}, {second:g}] must ascend: use [{second:g}, {first:g}]")
        return self

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        for name in ("ks", "user_columns", "item_columns"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)} names one twice: name each once")
        return self
