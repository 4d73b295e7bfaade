"""What a query may say, and that ids cross JSON as they are."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from raycl.serving.api import Answer, Asked, Item, Queries, Query


def test_everything_has_a_default() -> None:
    assert Query().model_dump(exclude_none=True) == {
        "history": [],
        "times": [],
        "context": {},
        "user": {},
        "k": 10,
        "exclude_history": True,
        "exclude": [],
        "new_items": {},
        "explain": False,
    }


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"k": 0}, "k"),
        ({"k": "many"}, "k"),
        ({"history": "101,102"}, "history"),
        ({"history": [{"item": 101}]}, "history"),
        ({"history": [None]}, "history"),
        ({"history": [1] * 10_001}, "history"),
        ({"exclude": [1] * 10_001}, "exclude"),
        ({"user": ["pe"]}, "user"),
        ({"user_id": "x" * 1_025}, "user_id"),
        ({"user_id": 2**64}, "user_id"),
        ({"context": ["phone"]}, "context"),
        ({"times": 3}, "times"),
        ({"times": ["yesterday"]}, "times"),
        ({"times": [1] * 10_001}, "times"),
        ({"time": [1]}, "time"),
        ({"histroy": [101]}, "histroy"),
        ({"user": {"age": [[[[[[[[[1]]]]]]]]]}}, "user"),
        ({"new_items": {"1": 2}}, "new_items"),
        ({"new_items": {str(one): {} for one in range(101)}}, "new_items"),
        ({"filter": {"op": "eq"}}, "filter"),
        ({"filter": "tea"}, "filter"),
        ({"diversity": {"method": "luck"}}, "diversity"),
        ({"diversity": {"strength": 1.5}}, "diversity"),
        ({"diversity": {"strength": float("nan")}}, "diversity"),
        ({"diversity": {"max_per": {"category": 0}}}, "diversity"),
        ({"diversity": {"candidates": 2_001}}, "diversity"),
    ],
)
def test_what_is_no_query_is_refused_by_field(body: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Query.model_validate(body)
    assert {problem["loc"][0] for problem in refused.value.errors()} == {where}


def test_the_longest_history_passes() -> None:
    assert len(Query(history=[1] * 10_000, exclude=[1] * 10_000).history) == 10_000


@pytest.mark.parametrize("one", [7, -7, 2**63 - 1, "7", "007", "1_000", " 7", "+7", "7.0", "a-b", ""])
def test_an_id_crosses_json_unchanged(one: int | str) -> None:
    """A text that looks like a number stays a text: of the ids "007" and "7" both may be in one catalogue."""
    query = Query.model_validate_json(Query(history=[one]).model_dump_json())
    answer = Answer(release="r", items=[Item(item_id=one, score=0.5)], short=False, matched=1, unknown_history=0)
    back = Answer.model_validate_json(answer.model_dump_json())
    for found in (query.history[0], back.items[0].item_id):
        assert found == one
        assert type(found) is type(one)


def body(value: object) -> Query | Queries:
    return TypeAdapter[Query | Queries](Asked).validate_python(value)


def test_a_body_is_one_query_or_many() -> None:
    assert body({"k": 3}) == Query(k=3)
    assert body({"queries": [{"k": 3}, {}]}) == Queries(queries=[Query(k=3), Query()])
    wrong: object
    for wrong in ({"queries": []}, {"queries": [{"k": 3}], "k": 3}, {"queries": 3}, [], "k", None):
        with pytest.raises(ValidationError):
            body(wrong)
