"""``train.pretrain``: what towers learn of the items alone, before they learn from users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from raycl.config_loss import FeatureMasking, LossConfig, Reconstruction, to_terms
from raycl.config_validation import Cosine, Validation
from raycl.config_values import Positive, Section

if TYPE_CHECKING:
    from raycl.config import Config

OfItems = Annotated[FeatureMasking | Reconstruction, Field(discriminator="kind")]


class Pretrain(Section):
    """Self-supervised training on the items of the training pairs, whose towers the training itself begins with.

    They are a version of their own, found again by whatever else begins with them. Left out where ``train.start_from``
    names other towers.
    """

    terms: Annotated[tuple[OfItems, ...], Field(min_length=1), BeforeValidator(to_terms)]
    """As ``loss.terms``, of those that no user has a part in: ``reconstruction`` (an autoencoder of the features) and
    ``masked_features``."""
    epochs: Positive = 1
    learning_rate: Annotated[float, Field(gt=0.0)] | None = None
    """By default ``train.learning_rate``."""


def before(config: Config) -> Config | None:
    """The config whose towers ``config`` begins with; None where it does not pretrain."""
    how = config.train.pretrain
    if how is None or config.train.start_from is not None:
        return None
    changed = {
        "pretrain": None,
        "epochs": how.epochs,
        "learning_rate": how.learning_rate or config.train.learning_rate,
        "validation": Validation(users=0),
        "early_stop": None,
        "schedule": Cosine(kind="cosine"),
        "keep": "last",
    }
    return config.model_copy(
        update={"loss": LossConfig(terms=how.terms), "train": config.train.model_copy(update=changed)}
    )


def after(config: Config, towers: str) -> Config:
    """``config`` as it begins with these towers."""
    return config.model_copy(update={"train": config.train.model_copy(update={"start_from": towers})})
