"""The ``loss`` section: which terms are summed, what they are contrasted with, and how sampling is corrected."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from raycl.config_values import Count, Positive, Section

Temperature = Annotated[float, Field(gt=0.0, le=10.0)]
TermWeight = Annotated[float, Field(gt=0.0)]
Part = Annotated[float, Field(gt=0.0, lt=1.0)]
Cosine = Annotated[float, Field(ge=-1.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
# YAML reads an unquoted `off` as false.
LogQ = Annotated[
    Literal["static", "streaming", "off"], BeforeValidator(lambda value: "off" if value is False else value)
]


class Softmax(Section):
    """The own item against all negatives at once (InfoNCE, sampled softmax)."""

    kind: Literal["softmax"]
    weight: TermWeight = 1.0


class CorrectedSoftmax(Section):
    """Softmax whose logQ leaves out the own item, which is there for certain: less bias with few negatives."""

    kind: Literal["corrected_softmax"]
    weight: TermWeight = 1.0


class MultiPositive(Section):
    """Softmax in which the items of the user's history are own items too, wherever they are among the candidates."""

    kind: Literal["multi_positive"]
    weight: TermWeight = 1.0


class Bpr(Section):
    """The own item against one negative at a time, logistic."""

    kind: Literal["bpr"]
    weight: TermWeight = 1.0


class Triplet(Section):
    """The own item must be nearer than each negative by ``margin``, in cosine."""

    kind: Literal["triplet"]
    weight: TermWeight = 1.0
    margin: Annotated[float, Field(gt=0.0, le=2.0)] = 0.2


class CosineMargin(Section):
    """The own item towards a cosine of 1, negatives down to ``margin``."""

    kind: Literal["cosine_margin"]
    weight: TermWeight = 1.0
    margin: Cosine = 0.3
    negative_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Of the negatives' mean beside the own item's part."""


class Rating(Section):
    """Cosine regressed on the event's weight, which here is the rating and no weight."""

    kind: Literal["rating"]
    weight: TermWeight = 1.0
    low: float = 0.0
    """The rating that means a cosine of -1; lower ones mean it too."""
    high: float = 5.0
    """The rating that means a cosine of 1; higher ones mean it too."""

    @model_validator(mode="after")
    def _has_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low:g} must be below high={self.high:g}: name the lowest and the best rating")
        return self


class ViewContrast(Section):
    """Two changed views of one history are each other's own; an auxiliary term."""

    kind: Literal["views"]
    weight: TermWeight = 0.1
    temperature: Temperature = 0.5
    crop: Part | None = 0.6
    """Keep a run of this share of the history; null leaves the operation out, here and below."""
    mask: Part | None = 0.3
    """Leave out this share of the items."""
    reorder: Part | None = 0.6
    """Shuffle a run of this share."""
    substitute: Part | None = None
    """Put in the place of this share the items that most often stand beside them in training histories."""

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.crop is None and self.mask is None and self.reorder is None and self.substitute is None:
            raise ValueError("views that change nothing: give one of crop, mask, reorder and substitute a share")
        return self


class FeatureMasking(Section):
    """Two views of one item, each without half of its features, are each other's own; an auxiliary term."""

    kind: Literal["masked_features"]
    weight: TermWeight = 0.1
    temperature: Temperature = 0.2


class Reconstruction(Section):
    """The item's features are read back from its vector (autoencoder); an auxiliary term."""

    kind: Literal["reconstruction"]
    weight: TermWeight = 0.1
    max_tokens: Annotated[int, Field(ge=2)] = 4_096
    """Values of one feature that are told apart; those of a feature with more are taken modulo this."""


Term = Annotated[
    Softmax
    | CorrectedSoftmax
    | MultiPositive
    | Bpr
    | Triplet
    | CosineMargin
    | Rating
    | ViewContrast
    | FeatureMasking
    | Reconstruction,
    Field(discriminator="kind"),
]

CONTRASTING = ("softmax", "corrected_softmax", "multi_positive", "bpr", "triplet", "cosine_margin")
"""Terms that compare users with negatives."""
TEMPERED = ("softmax", "corrected_softmax", "multi_positive", "bpr")
"""Terms that divide by ``loss.temperature``."""


def to_terms(value: Any) -> Any:
    """A name alone is the term of that kind, and one term needs no list."""
    terms = [value] if isinstance(value, str | dict) else value
    return [{"kind": one} if isinstance(one, str) else one for one in terms] if isinstance(terms, list) else terms


class Mined(Section):
    """Items that the newest towers before took for near a pair's own item: hard negatives of that pair alone.

    Of a catalogue of more than 262,144 items, ranks are those among as many drawn from it.
    """

    per_pair: Positive = 1
    """How many a pair is compared with, drawn anew in each step; beside those that all pairs are compared with, since
    hard ones alone hurt."""
    pool: Positive = 16
    """How many are kept of each item to draw from."""
    range_min: Count = 10
    """Nearer ones than this rank are left out: they may be the same thing."""
    range_max: Positive = 100
    """Ranks from this one on are left out."""
    max_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """So are those with a higher cosine: the item's own, with itself, is 1."""

    @model_validator(mode="after")
    def _has_range(self) -> Self:
        if self.range_max - self.range_min < self.pool:
            raise ValueError(
                f"range_max={self.range_max} leaves fewer ranks from range_min={self.range_min} on than pool="
                f"{self.pool}: raise it, or lower pool"
            )
        if self.per_pair > self.pool:
            raise ValueError(f"per_pair={self.per_pair} is more than pool={self.pool}: raise pool or lower per_pair")
        return self


class Negatives(Section):
    """What an own item is contrasted with, besides the other items of the batch."""

    explicit: bool | Positive = False
    """What the user turned down before (``pairs.negative_events``, ``pairs.negative_below``) is a negative of that pair
    alone: as many as ``pairs.max_negatives``, or this many of the newest."""

    mined: Mined | None = None
    """Hard negatives from the newest finished towers of the workspace, such as ``{per_pair: 2}``. The first run has no
    towers to mine from and goes without."""
    uniform: Count = 0
    """Items of the whole catalogue drawn evenly in each step, for all users alike (mixed negative sampling)."""
    bank: Count = 0
    """Item vectors of the last steps that are kept as further negatives, without gradient; the oldest leave first."""
    bank_after_steps: Count = 1_000
    """Steps before the bank starts: vectors of the first steps are stale at once."""
    hard: Count = 0
    """Of all that every user is compared with, only this many of the nearest to each count, and ``random`` others; 0
    and 0: all count. Explicit and mined negatives count beside them."""
    random: Count = 0

    def num_explicit(self, most: int) -> int:
        """Explicit negatives of a pair at most, where the pairs have ``most``."""
        return most * self.explicit if isinstance(self.explicit, bool) else self.explicit


class Sketch(Section):
    """How ``log_q: streaming`` estimates frequencies."""

    width: Positive = 2**20
    """Counters of one hash; a vocabulary that is no larger gets a counter an item and no collision."""
    num_hashes: Positive = 3
    rate: Rate = 0.01
    """Weight of an item's newest gap: about the last 1 / rate occurrences are remembered."""


class LossConfig(Section):
    """The training objective."""

    terms: Annotated[tuple[Term, ...], Field(min_length=1), BeforeValidator(to_terms)] = (Softmax(kind="softmax"),)
    """A weighted sum: one name (``bpr``), or a list of names and mappings such as ``{kind: triplet, margin: 0.3}``."""
    user_balance: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """A pair of a user with n pairs weighs by n to the power of minus this, at a mean of 1 over all pairs: with 0 pairs
    count alike and users by how much they did, with 1 users count alike, as they do in recall (Covington et al., RecSys
    2016, section 3.4)."""
    temperature: Temperature = 0.1
    learn_temperature: bool = False
    """Start from ``temperature`` and train it like a weight, never under 0.01."""
    log_q: LogQ = "static"
    """Correct negatives by their sampling probability: ``static`` by counts of the training pairs, ``streaming`` by a
    sketch of what the batches bring; off leaves popular items punished."""
    log_q_strength: Annotated[float, Field(gt=0.0, le=2.0)] = 1.0
    """Of the correction so much is made: under 1 some of the punishment of popular items is left, over 1 they are
    favoured by as much."""
    sketch: Sketch = Sketch()
    negatives: Negatives = Negatives()

    def has(self, *kinds: str) -> bool:
        """Whether one of the terms is of one of these kinds."""
        return any(term.kind in kinds for term in self.terms)
