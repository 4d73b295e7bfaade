"""The ``answers`` section: what ``raycl run`` asks the release that it published, to be seen at once."""

from __future__ import annotations

from raycl.config_values import Positive, Section
from raycl.serving.api import Diversity


class AnswersConfig(Section):
    """Some users of the test part, each asked for with all that the pairs know of them."""

    users: Positive = 3
    """How many, the first ones of the part."""
    k: Positive = 5
    """Items in each answer."""
    explain: bool = False
    """Say which event of the history carried each item most, and how much of its score that is."""
    diversity: Diversity | None = None
    """As a request has it. Beside each item stands its place among the nearest ones without it."""
    similar: bool = False
    """Items like the newest one of the history too."""
