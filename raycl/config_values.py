"""What the sections of the config are made of: their base, and values that YAML writes in more than one way."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(min_length=1)]
HeldShare = Annotated[float, Field(gt=0.0, lt=1.0)]


def to_moment(value: Any) -> datetime:
    """A date is its first moment, and a time without a zone is UTC; ValueError for a number or any other text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError("write a date or a time such as 2026-01-31 or 2026-01-31T06:00:00Z") from error
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise ValueError("write a date or a time such as 2026-01-31 or 2026-01-31T06:00:00Z")
    if value.microsecond % 1000:
        raise ValueError("times are kept in whole milliseconds: write at most three digits after the second")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _to_text(value: Any) -> Any:
    """Dates and times as ISO text, which YAML reads back as the same; any other value as it is."""
    return value.isoformat() if isinstance(value, date) else value


def _to_list(value: Any) -> Any:
    return (value,) if isinstance(value, (str, int, float)) else value


Moment = Annotated[datetime, BeforeValidator(to_moment)]
"""A moment in UTC, in whole milliseconds; written as a date it is the start of that day."""

Plain = Annotated[bool | int | float | str | None, BeforeValidator(_to_text)]
"""One value of a column: a date or a time is text."""

OneOrMore = BeforeValidator(_to_list)
"""A list of names or numbers, of which a single one may stand without brackets."""


class Section(BaseModel):
    """A part of the tree: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Workers(Section):
    """How many processes train together: as many as there is room for, from ``min`` to ``max``."""

    min: Positive
    max: Positive


def _to_workers(value: Any) -> Any:
    if isinstance(value, (Workers, dict)):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("write a number of 1 or more, or a range such as {min: 2, max: 4}")
    return Workers(min=value, max=value)


def _of_workers(workers: Workers) -> int | dict[str, int]:
    return workers.min if workers.min == workers.max else workers.model_dump()


NumWorkers = Annotated[
    Workers, BeforeValidator(_to_workers, json_schema_input_type=Positive | Workers), PlainSerializer(_of_workers)
]
"""A number, or a range as ``{min: 2, max: 4}``."""
