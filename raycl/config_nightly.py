"""The ``nightly`` section: what ``raycl nightly`` does besides the stages."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raycl.config_values import Positive, Section


class FineTune(Section):
    """Training that goes on from the towers of the current release, and is shorter for it."""

    epochs: Positive = 1
    """In place of ``train.epochs``."""
    learning_rate: Annotated[float, Field(gt=0.0)] | None = None
    """In place of ``train.learning_rate``, by default the same."""
    most_in_a_row: Positive = 6
    """After so many nights the towers are trained from the start again: what no event teaches any more is forgotten
    only then."""


class NightlyConfig(Section):
    """The nightly job."""

    fine_tune: FineTune | None = None
    """By default every night trains from the start. Towers that do not fit (another model, other features, another type
    of ids) are not gone on from, and the night says why."""
