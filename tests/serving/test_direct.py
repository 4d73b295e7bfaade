"""The short way beside FastAPI's: what both read, and that they answer alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from raycl.serving import direct
from raycl.serving.api import Asked, Queries, Query
from tests.serving import services
from tests.serving.services import Web

FASTAPI = TypeAdapter(Asked)
JSON = b"application/json"

_ids = st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.floats(allow_nan=False), st.none())
_fields = {
    "history": st.lists(_ids, max_size=3),
    "times": st.lists(st.one_of(st.none(), st.floats(), st.text(max_size=3)), max_size=3),
    "k": st.one_of(st.integers(-2, 5), st.text(max_size=2), st.floats(), st.just("3")),
    "user": st.dictionaries(st.text(max_size=3), st.one_of(_ids, st.lists(_ids, max_size=2)), max_size=2),
    "exclude_history": st.one_of(st.booleans(), st.sampled_from(["true", "no", 1, 2])),
    "user_id": _ids,
    "filter": st.one_of(
        st.none(),
        st.fixed_dictionaries({"op": st.sampled_from(["eq", "in", "nor"]), "column": st.just("kind"), "value": _ids}),
        st.fixed_dictionaries({"op": st.just("items"), "ids": st.lists(_ids, max_size=3)}),
    ),
    "diversity": st.one_of(st.none(), st.fixed_dictionaries({"strength": st.floats()})),
    "explain": st.one_of(st.booleans(), st.integers(0, 2)),
    "bogus": st.none(),
}
_query = st.fixed_dictionaries({}, optional=_fields)
_body = st.one_of(
    _query, st.fixed_dictionaries({"queries": st.lists(_query, max_size=2)}), st.lists(_query, max_size=1)
)


@settings(max_examples=600, deadline=None)
@given(_body)
def test_what_is_read_here_is_what_fastapi_reads(body: Any) -> None:
    """Where the short way reads a body, FastAPI's reads the same; what is refused is left to it."""
    written = json.dumps(body)
    found = direct.read(JSON, written.encode(errors="surrogatepass"))
    if found is not None:
        assert FASTAPI.validate_python(json.loads(written)) == found


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"history": [1], "k": 3}', Query),
        ('{"queries": [{"k": 3}, {}]}', Queries),
        ('{"user": {"queries": 1}}', type(None)),
        ('{"k": 1, "k": 2}', Query),
        ("{half", type(None)),
        ("[]", type(None)),
        ('{"bogus": 1}', type(None)),
    ],
)
def test_a_plain_query_is_read_and_anything_else_is_not(body: str, kind: type) -> None:
    found = direct.read(JSON, body.encode())
    assert isinstance(found, kind)
    if found is not None:
        assert FASTAPI.validate_python(json.loads(body)) == found


@pytest.mark.parametrize("kind", [b"", b"text/plain", b"application/x-www-form-urlencoded"])
def test_a_body_that_does_not_say_it_is_json_is_not_read(kind: bytes) -> None:
    assert direct.read(kind, b"{}") is None
    assert direct.read(b"application/json; charset=utf-8", b"{}") == Query()


def test_both_ways_answer_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[dict[str, Any]] = [
        {"history": [101, 103], "k": 3, "user": {"age": 30}},
        {"queries": [{"history": [101]}, {"k": 2}]},
        {"k": 501},
        {"k": 0},
        {"bogus": 1},
        {"user": {"city": "lima"}},
    ]
    running = services.service(tmp_path)
    with Web(running) as web:
        early = web.post("/v1/retrieve", json={})
        services.publish(running, tmp_path)
        short = [web.post("/v1/retrieve", json=body) for body in bodies]
        late = web.post("/v1/retrieve", json={}, headers={"x-request-timeout-ms": "soon"})
        with pytest.raises(ValidationError):
            Query.model_validate_json(json.dumps(bodies[3]))
        monkeypatch.setattr(direct, "read", lambda kind, body: None)
        long = [web.post("/v1/retrieve", json=body) for body in bodies]
        long_late = web.post("/v1/retrieve", json={}, headers={"x-request-timeout-ms": "soon"})
    assert [one.status_code for one in short] == [200, 200, 422, 422, 422, 422]
    assert (early.status_code, early.headers["retry-after"]) == (503, "1")
    for one, other in zip([*short, late], [*long, long_late], strict=True):
        assert one.status_code == other.status_code
        assert _told(one.json()) == _told(other.json())
        assert one.headers["content-type"] == other.headers["content-type"]


def _told(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "request_id"}
