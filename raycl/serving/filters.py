"""Which items a query wants: an expression over columns of the catalogue, as it stands in the request.

Logic has two values: what is asked of a column is false where the column says nothing, and so its ``not`` is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ItemId = Annotated[int | str, Field(description='As it stands in the JSON: "007" and "7" may be two items.')]

Value = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str
"""Text, a number, a truth value; a date or a time as ISO text."""

MOST_VALUES = 10_000
"""Of one list of values or ids."""


class _Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Equals(_Node):
    """The column has this value; a column of lists holds it."""

    op: Literal["eq"]
    column: str
    value: Value


class In(_Node):
    """The column has one of these values; a column of lists holds one."""

    op: Literal["in"]
    column: str
    values: Annotated[tuple[Value, ...], Field(max_length=MOST_VALUES)]


class Range(_Node):
    """The column is between the bounds, which belong to the range; one may be left out."""

    op: Literal["range"]
    column: str
    min: Value | None = None
    max: Value | None = None


class Available(_Node):
    """The item can be had, as the service's ``available`` column says."""

    op: Literal["available"]


class Items(_Node):
    """The item is one of these: an allow list, or under ``not`` a deny list."""

    op: Literal["items"]
    ids: Annotated[tuple[ItemId, ...], Field(max_length=MOST_VALUES)]


class And(_Node):
    """All of these hold; with none of them it is true."""

    op: Literal["and"]
    of: Annotated[tuple[Filter, ...], Field(max_length=100)]


class Or(_Node):
    """One of these holds; with none of them it is false."""

    op: Literal["or"]
    of: Annotated[tuple[Filter, ...], Field(max_length=100)]


class Not(_Node):
    """This does not hold."""

    op: Literal["not"]
    of: Filter


Filter = Annotated[Equals | In | Range | Available | Items | And | Or | Not, Field(discriminator="op")]

for _node in (And, Or, Not):
    _node.model_rebuild()


def size(node: Filter) -> int:
    """Nodes and values of the whole expression: what it may cost to look at."""
    return sum(1 + _values(one) for one in _walk(node))


def _walk(node: Filter) -> Iterator[Filter]:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        if isinstance(one, And | Or):
            waiting.extend(one.of)
        elif isinstance(one, Not):
            waiting.append(one.of)


def _values(node: Filter) -> int:
    if isinstance(node, In):
        return len(node.values)
    return len(node.ids) if isinstance(node, Items) else 0
