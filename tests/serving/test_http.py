"""The routes: what goes in, what comes out, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raycl.serving.api import Answer, Query
from raycl.serving.retriever import Retriever
from tests.serving import builders, services
from tests.serving.services import Noted, Web

SECRET = "a secret of the inside"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    running = services.service(tmp_path, max_k=20, filters={"available": "stock"})
    services.publish(running, tmp_path)
    with Web(running) as web:
        yield web


def plain() -> Retriever:
    return builders.retriever(table=services.catalogue())


def test_one_query_has_one_answer_and_many_have_as_many(web: Web) -> None:
    asked: list[dict[str, Any]] = [{"history": [103], "k": 2}, {"user": {"age": 30}, "k": 3}, {}]
    expected = plain().retrieve([Query.model_validate(one) for one in asked])
    for one, answer in zip(asked, expected, strict=True):
        found = web.post("/v1/retrieve", json=one)
        assert found.status_code == 200
        assert Answer.model_validate(found.json()) == answer
    together = web.post("/v1/retrieve", json={"queries": asked})
    assert together.json()["release"] == "r1"
    assert [Answer.model_validate(one) for one in together.json()["answers"]] == expected


def test_everything_that_a_query_may_wish_goes_through(web: Web) -> None:
    body = {
        "history": [101, "new"],
        "new_items": {"new": {"kind": "rope"}},
        "user_id": "ann",
        "k": 3,
        "filter": {"op": "and", "of": [{"op": "available"}, {"op": "not", "of": {"op": "items", "ids": [102]}}]},
        "diversity": {"method": "mmr", "strength": 0.3, "max_per": {"kind": 1}, "explore": 0.3, "seed": 1},
        "explain": True,
    }
    found = web.post("/v1/retrieve", json=body)
    assert found.status_code == 200, found.text
    answer = Answer.model_validate(found.json())
    assert {item.item_id for item in answer.items} == {104, 110}
    assert (answer.short, answer.matched, answer.basis) == (True, 2, "history")
    assert all(item.reasons for item in answer.items)


def test_similar_items_of_known_and_unknown_ones(web: Web) -> None:
    known = Answer.model_validate(web.get("/v1/items/103/similar", params={"k": 3}).json())
    assert (known.basis, len(known.items)) == ("item", 3)
    assert 103 not in [item.item_id for item in known.items]
    unknown = web.get("/v1/items/a%2Fb%20%C3%A9/similar", params={"kind": "rope", "price": "29", "size": "x"}).json()
    assert (unknown["basis"], unknown["items"][0]["item_id"]) == ("features", 104)
    assert web.get("/v1/items/nothing/similar").json()["basis"] == "popularity"
    assert web.get("/v1/items/103/similar", params={"k": 21}).status_code == 422
    assert web.get("/v1/items/103/similar", params={"k": "many"}).json()["detail"][0]["loc"] == ["query", "k"]


def test_fresh_events_count_in_the_next_answer(web: Web) -> None:
    before = web.post("/v1/retrieve", json={"user_id": "ann"}).json()
    assert before["basis"] == "popularity"
    posted = [{"user_id": "ann", "item_id": item} for item in (101, 103)]
    assert web.post("/v1/events", json={"events": posted}).json() == {"accepted": 2}
    after = web.post("/v1/retrieve", json={"user_id": "ann"}).json()
    told = web.post("/v1/retrieve", json={"history": [101, 103]}).json()
    assert after == told
    assert web.post("/v1/retrieve", json={"user_id": "bob"}).json() == before


def test_health_readiness_and_release(tmp_path: Path) -> None:
    running = services.service(tmp_path)
    with Web(running) as web:
        assert web.get("/healthz").json() == {"status": "ok"}
        assert (web.get("/readyz").status_code, web.get("/readyz").json()) == (503, {"status": "no release"})
        assert web.get("/v1/release").json() == {"release": None, "delta": 0, "problem": None}
        refused = web.post("/v1/retrieve", json={})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["detail"].startswith("no release answers yet: publish one")
        assert str(tmp_path) not in refused.text
        services.publish(running, tmp_path)
        assert (web.get("/readyz").status_code, web.get("/readyz").json()) == (200, {"status": "ready"})
        assert web.get("/v1/release").json() == {"release": "r1", "delta": 0, "problem": None}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"k": 21}, "k=21 is above serving.max_k=20: ask for fewer"),
        ({"queries": [{}] * 65}, "queries=65 is above serving.guard.max_queries=64: send fewer at once"),
        ({"user": {"city": "lima"}}, "user.city='lima': the release knows no such feature"),
        ({"user": {"age": "old"}}, "user.age: 'old' is not a numeric value"),
        ({"filter": {"op": "eq", "column": "size", "value": 1}}, "filter op=eq: column='size' cannot be filtered by"),
        ({"diversity": {"max_per": {"size": 1}}}, "diversity.max_per.size: column='size' cannot be filtered by"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_remedy(web: Web, body: dict[str, Any], told: str) -> None:
    refused = web.post("/v1/retrieve", json=body)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(told)


def test_limits_of_the_config_hold(tmp_path: Path) -> None:
    running = services.service(tmp_path, max_k=4, guard={"max_history": 2})
    services.publish(running, tmp_path)
    with Web(running) as web:
        assert len(web.post("/v1/retrieve", json={}).json()["items"]) == 4
        for name in ("history", "exclude"):
            refused = web.post("/v1/retrieve", json={name: [1, 2, 3]})
            assert refused.status_code == 422
            assert refused.json()["detail"].startswith(f"{name}: 3 ids are above serving.guard.max_history=2")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"k": 0}, ["body", "k"]),
        ({"histroy": [101]}, ["body", "histroy"]),
        ({"queries": [{}, {"k": SECRET}]}, ["body", "queries", 1, "k"]),
        ({"filter": {"op": SECRET}}, ["body", "filter"]),
        ({"filter": {"op": "eq", "column": 3, "value": 1}}, ["body", "filter", "eq", "column"]),
    ],
)
def test_a_body_of_a_wrong_form_is_refused_by_field(web: Web, body: dict[str, Any], place: list[Any]) -> None:
    refused = web.post("/v1/retrieve", json=body)
    assert refused.status_code == 422
    (problem,) = refused.json()["detail"]
    assert problem["loc"] == place
    assert sorted(problem) == ["loc", "msg", "type"], "what was sent does not come back"


@pytest.mark.parametrize(
    "content",
    [b"", b"{half", b"\xff\xfe", b"[" * 100_000, b'{"k": ' + b"9" * 5_000 + b"}", b'{"k": NaN}', b'"\\ud800"', b"null"],
)
def test_a_body_that_is_no_query_is_refused(web: Web, content: bytes) -> None:
    refused = web.post("/v1/retrieve", content=content, headers={"content-type": "application/json"})
    assert refused.status_code in (400, 422)
    assert refused.json()["request_id"] == refused.headers["x-request-id"]


def test_text_that_utf_8_cannot_write_is_refused_and_the_refusal_can_be_read(web: Web) -> None:
    for text in (r'{"user": {"country": "\ud800"}}', r'{"diversity": {"max_per": {"\ud800": 1}}}', r'{"\ud800": 1}'):
        refused = web.post("/v1/retrieve", content=text, headers={"content-type": "application/json"})
        assert refused.status_code == 422, refused.text


def test_an_unknown_path_and_a_wrong_method_are_problems_too(web: Web) -> None:
    assert (web.get("/v2/retrieve").status_code, web.get("/v1/retrieve").status_code) == (404, 405)
    assert sorted(web.get("/elsewhere").json()) == ["detail", "request_id"]


def failing(name: str, *, quietly: bool) -> Retriever:
    def encode(*_: object) -> Any:
        raise RuntimeError(SECRET)

    return builders.retriever(release=name, encode=encode)


def test_what_fails_inside_says_no_more_than_its_request_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    running = services.service(tmp_path, failing)
    services.publish(running, tmp_path)
    with Web(running) as web:
        failed = web.post("/v1/retrieve", json={"history": [101]}, headers={"x-request-id": "abc"})
        assert failed.status_code == 500
        assert failed.json() == {
            "detail": "the service failed; its log has the reason under this request id",
            "request_id": "abc",
        }
        assert "request abc failed" in caplog.messages
        assert SECRET in caplog.text
        assert web.post("/v1/retrieve", json={}).status_code == 200, "the popular need no encoder"


def test_the_documentation_names_every_route_and_the_token(web: Web) -> None:
    schema = web.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/v1/retrieve",
        "/v1/items/{item_id}/similar",
        "/v1/events",
        "/v1/release",
        "/v1/quality",
        "/healthz",
        "/readyz",
    }
    assert schema["components"]["schemas"]["Query"]["properties"]["filter"]
    assert schema["paths"]["/v1/retrieve"]["post"]["security"] == [{"HTTPBearer": []}]
    assert web.get("/docs").status_code == 200


def test_answers_are_counted(tmp_path: Path) -> None:
    meter = Noted()
    running = services.service(tmp_path, meter=meter)
    services.publish(running, tmp_path)
    with Web(running) as web:
        web.post("/v1/retrieve", json={"queries": [{"k": 2, "history": [101]}, {"k": 9}]})
        web.post("/v1/retrieve", json={"k": 0})
        web.get("/v1/items/103/similar")
        web.get("/nowhere/else")
        assert meter.sum("raycl_requests", route="/v1/retrieve", status="200") == 1
        assert meter.sum("raycl_requests", route="/v1/retrieve", status="422") == 1
        assert meter.sum("raycl_requests", route="/v1/items/{item_id:path}/similar", status="200") == 1
        assert meter.sum("raycl_requests", route="other", status="404") == 1
        assert [meter.sum("raycl_answers", basis=basis) for basis in ("history", "popularity", "item")] == [1, 1, 1]
        assert meter.sum("raycl_short_answers") == 2
        assert meter.sum("raycl_batch_queries") == 3
        assert (meter.sum("raycl_swaps"), meter.sum("raycl_release_stale")) == (1, 0)
