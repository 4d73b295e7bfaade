"""What a request may ask and an answer holds: the contract of version 1 of the service."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from raycl.serving.filters import Filter as Filter
from raycl.serving.filters import ItemId as ItemId

MOST_IDS = 10_000
"""Of a history, and of what is to be left out beside it."""

KeptId = Annotated[int, Field(ge=-(2**63), lt=2**64)] | Annotated[str, Field(max_length=1_024)]
"""Bounded, as is what a log may hold, since a replica keeps it."""

_MOST_NESTED = 8


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    """A value of lists within lists beyond a few is no feature, and what reads it would run out of stack."""
    level: list[Any] = [value]
    for _ in range(_MOST_NESTED):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return value
    raise ValueError(f"is nested more than {_MOST_NESTED} deep")


Features = Annotated[dict[str, Any], AfterValidator(_shallow)]
"""Values by name of the feature."""

Basis = Literal["history", "features", "item", "popularity"]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Diversity(_Asked):
    """How an answer should differ from the ``k`` nearest items."""

    method: Literal["mmr", "dpp"] | None = None
    """``mmr``: maximal marginal relevance; ``dpp``: the greedy mode of a determinantal point process."""
    strength: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Of the method: 0 looks at scores alone, 1 at likeness alone."""
    max_per: Annotated[dict[str, Annotated[int, Field(ge=1)]], Field(max_length=10)] = {}
    """At most so many items of one value, by column."""
    popularity_discount: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Taken off the score of the most popular item; others lose less, by the logarithm of their training events."""
    explore: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the answer that is drawn evenly from the candidates beyond it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the draw: the same request has the same answer from the same release."""
    candidates: Annotated[int, Field(ge=1, le=2_000)] | None = None
    """Nearest items to choose from; by default 5 times ``k``, and more where caps ask for it."""


class Query(_Asked):
    """One user's state, and how many items are wanted."""

    history: Annotated[list[ItemId], Field(max_length=MOST_IDS)] = []
    """Item ids that the user met, the newest last; ids that the release does not know are passed over and counted."""
    times: Annotated[list[float | None], Field(max_length=MOST_IDS)] = []
    """When each event of ``history`` was, in seconds since 1970 (UTC), null where that is not known; by default none
    is."""
    time: float | None = None
    """When the answer is asked for, in the same seconds; by default now."""
    context: Features = {}
    """What is known of the request, by the names of the config's ``context``."""
    user: Features = {}
    """What is known of the user, by the names of ``users.features``."""
    k: Annotated[int, Field(ge=1)] = 10
    """Without it ``serving.max_k`` where that is less."""
    exclude_history: bool = True
    """Leave out what is in ``history``."""
    exclude: Annotated[list[ItemId], Field(max_length=MOST_IDS)] = []
    """Other items to leave out."""
    user_id: KeptId | None = None
    """Events posted for this user that are not in ``history`` follow it."""
    new_items: Annotated[dict[str, Features], Field(max_length=100)] = {}
    """Of ids in ``history`` that the release may not know: their values by column of the catalogue. The likest known
    item stands for each."""
    filter: Filter | None = None
    """Which items may come."""
    diversity: Diversity | None = None
    explain: bool = False
    """Say of each item which events of the history carried it."""


class Queries(_Asked):
    """Several queries, answered together and from one release."""

    queries: Annotated[list[Query], Field(min_length=1)]


def _one_or_many(value: Any) -> str:
    return "many" if isinstance(value, Queries) or (isinstance(value, dict) and "queries" in value) else "one"


Asked = Annotated[Annotated[Query, Tag("one")] | Annotated[Queries, Tag("many")], Discriminator(_one_or_many)]
"""The body of ``POST /v1/retrieve``."""


class Reason(BaseModel):
    """One event of the history, and what it adds to an item's score."""

    item_id: ItemId
    value: float


class Reasons(BaseModel):
    """Where an item's score comes from: ``empty_history`` and the values of the events add up to it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    empty_history: float
    """The item's score for the same user without any event."""
    events: list[Reason]
    """The events that the tower reads, the largest value first."""


class Item(BaseModel):
    """A retrieved item; the catalogue's displayed columns come along in ``display``."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    item_id: ItemId
    score: float
    """Cosine of user and item vector, or with ``index.metric`` l2 less the square of their distance; where the basis is
    popularity, training events as a share of the largest number of them."""
    title: str | None = None
    display: dict[str, Any] = {}
    explored: bool = False
    """Whether chance brought it."""
    reasons: Reasons | None = None


class Answer(BaseModel):
    """At most ``k`` items, best first, all from one release."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    release: str
    items: list[Item]
    short: bool
    """Whether there are fewer than ``k``."""
    matched: int
    """Items that pass the filter and are not left out: so many there would be for a large enough ``k`` without caps."""
    unknown_history: int
    """Ids of ``history`` that the release does not know."""
    basis: Basis = "history"
    """What the order comes from; ``popularity`` where nothing is known of the user."""
    degraded: list[Literal["diversity", "shards"]] = []
    """What there was no time for: to choose by ``diversity``, which takes the vectors of all candidates, or for all
    ``shards``, so that items may be missing, and some without reasons."""
    delta: int = 0
    """The newest hand-in to the release that the answer knows of, see ``raycl delta``; 0 without any."""


class Answers(BaseModel):
    """One answer a query, in order."""

    release: str
    answers: list[Answer]


class Event(_Asked):
    """That a user met an item just now."""

    user_id: KeptId
    item_id: KeptId


class Events(_Asked):
    """The body of ``POST /v1/events``."""

    events: Annotated[list[Event], Field(min_length=1, max_length=1_000)]
    """The newest last."""


class Accepted(BaseModel):
    """How many events a replica remembers from now on."""

    accepted: int


class Described(BaseModel):
    """Which release answers, with what joined it, and why a newer one or a hand-in does not."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    release: str | None
    delta: int = 0
    """The newest hand-in that answers."""
    problem: str | None


class Quality(BaseModel):
    """What the gate measured of the release that answers."""

    release: str | None
    measured: dict[str, float]


class Status(BaseModel):
    """Of ``/healthz`` and ``/readyz``."""

    status: str


class Problem(BaseModel):
    """Why there is no answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    detail: str | list[dict[str, Any]]
    """One line, or for a body of a wrong form ``loc``, ``msg`` and ``type`` of each field."""
    request_id: str
    """That of the header ``x-request-id``, to ask about."""
