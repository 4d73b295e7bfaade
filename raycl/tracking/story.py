"""What people are told of a run beside its curves: what it was trained on, how, where it came from, how well it does.

It lies beside the towers as ``run.json``, so that the page and the card can be made anew without the pairs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the story: frozen. Fields that this raycl does not know are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class Part(Section):
    """One part of the split, as the data report tells it."""

    name: str
    users: int
    pairs: int
    first: datetime | None
    """The first target in time; None where the log has no times."""
    last: datetime | None


class Trained(Section):
    """What the towers were trained on."""

    pairs: str
    """Version of the pairs."""
    fingerprint: str
    """Of those pairs: their logs and rules."""
    sources: dict[str, str]
    """What the pairs were made from."""
    counts: dict[str, int]
    dropped: dict[str, int]
    parts: tuple[Part, ...]


class Spot(Section):
    """An item on the map."""

    x: float
    y: float
    name: str
    """Its title, or its id where it has none."""
    train_count: int


class Map(Section):
    """The most popular items by the first two principal components of their vectors."""

    items: int
    """How many there are in all."""
    share: float
    """Of the variance that these two components hold."""
    spots: tuple[Spot, ...]
    """Most popular first."""


class Story(Section):
    """All of it."""

    format: Literal[1] = 1
    """Another number stands for a story that this code would misread; a field that is only added keeps the number."""
    towers: str
    """Their version."""
    fingerprint: str
    made: str
    """When training ended, in UTC."""
    raycl: str
    libraries: dict[str, str]
    inputs: dict[str, str]
    """Versions that the towers came from."""
    trained: Trained
    config: dict[str, Any]
    steps: int
    parameters: int
    losses: tuple[float, ...]
    """Mean of each epoch."""
    validation: tuple[dict[str, float], ...]
    kept: str
    """Which towers were kept, in words."""
    map: Map


class Evaluated(Section):
    """What an evaluation found of the towers."""

    version: str
    users: int
    models: tuple[dict[str, Any], ...]
    """A row a model, the towers first."""
    segments: tuple[dict[str, Any], ...]
    """A row a segment of users or items: the towers alone."""
    protocol: tuple[str, ...]
    """What it was measured by, in lines."""
