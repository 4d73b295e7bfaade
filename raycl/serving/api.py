"""What a request may ask and an answer holds: the contract of ``POST /v1/retrieve``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MOST_IDS = 10_000
"""Of a history, and of what is to be left out beside it."""

ItemId = int | str
"""As it stands in the JSON: text stays text, since "007" and "7" may be two items."""


class Query(BaseModel):
    """One user's state, and how many items are wanted."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    history: Annotated[list[ItemId], Field(max_length=MOST_IDS)] = []
    """Item ids that the user met, the newest last; ids that the release does not know are passed over and counted."""
    times: Annotated[list[float | None], Field(max_length=MOST_IDS)] = []
    """When each event of ``history`` was, in seconds since 1970 (UTC), null where that is not known; by default none
    is."""
    time: float | None = None
    """When the answer is asked for, in the same seconds; by default now."""
    context: dict[str, Any] = {}
    """What is known of the request, by the names of the config's ``context``."""
    user: dict[str, Any] = {}
    """What is known of the user, by the names of ``users.features``."""
    k: Annotated[int, Field(ge=1)] = 10
    """Without it ``serving.max_k`` where that is less."""
    exclude_history: bool = True
    """Leave out what is in ``history``."""
    exclude: Annotated[list[ItemId], Field(max_length=MOST_IDS)] = []
    """Other items to leave out."""


class Item(BaseModel):
    """A retrieved item; the catalogue's displayed columns come along in ``display``."""

    item_id: ItemId
    score: float
    """Cosine of user and item vector."""
    title: str | None = None
    display: dict[str, Any] = {}


class Answer(BaseModel):
    """At most ``k`` items, best first, all from one release."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    release: str
    items: list[Item]
    short: bool
    """Whether there are fewer than ``k``."""
    unknown_history: int
    """Ids of ``history`` that the release does not know."""
