"""What stands before every handler."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raycl.serving.service import Outcome, Service, Work
from tests.serving import services
from tests.serving.services import Noted, Web

OPEN = {"k": 1}


def ready(folder: Path, meter: Noted | None = None, **guard: object) -> Service:
    running = services.service(folder, meter=meter, guard=guard)
    services.publish(running, folder)
    return running


def test_without_a_known_token_only_health_and_documentation_are_open(tmp_path: Path) -> None:
    with Web(ready(tmp_path), "one", "two") as web:
        for headers in ({}, {"authorization": "Bearer three"}):
            refused = web.post("/v1/retrieve", json=OPEN, headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert web.get("/v1/release", headers=headers).status_code == 401
            assert web.get("/elsewhere", headers=headers).status_code == 401, "not even which paths there are"
        for token in ("one", "two"):
            assert web.post("/v1/retrieve", json=OPEN, headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert [web.get(path).status_code for path in ("/healthz", "/readyz", "/docs", "/openapi.json")] == [200] * 4


@pytest.mark.parametrize("given", ["abc-1.2_Z", "x" * 64])
def test_a_request_id_comes_back(tmp_path: Path, given: str) -> None:
    with Web(ready(tmp_path)) as web:
        for path in ("/healthz", "/v1/release", "/elsewhere"):
            assert web.get(path, headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", 'a"b', "é"])
def test_a_request_id_of_another_form_is_replaced(tmp_path: Path, given: str) -> None:
    with Web(ready(tmp_path)) as web:
        answers = [web.get("/healthz", headers={"x-request-id": given.encode()}) for _ in range(2)]
        ids = [answer.headers["x-request-id"] for answer in answers]
        assert ids[0] != ids[1]
        assert {len(one) for one in ids} == {32}


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_above_the_limit_is_refused_however_it_comes(tmp_path: Path, declared: bool) -> None:
    read = []

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            read.append(1)
            yield b" " * 100

    with Web(ready(tmp_path, max_body_bytes=250)) as web:
        refused = web.post("/v1/retrieve", content=b" " * 10_000 if declared else parts())
        assert refused.status_code == 413
        assert refused.json()["detail"].startswith("the body is above serving.guard.max_body_bytes=250")
        assert web.post("/v1/retrieve", json=OPEN).status_code == 200
        assert web.post("/v1/retrieve", content=b'{"k": 1}' + b" " * 242).status_code == 422, "no JSON by its type"
        full = b'{"k": 1}' + b" " * 242
        assert web.post("/v1/retrieve", content=full, headers={"content-type": "application/json"}).status_code == 200


def test_a_caller_above_its_rate_is_told_when_to_come_back(tmp_path: Path) -> None:
    meter = Noted()
    with Web(ready(tmp_path, meter, requests_per_s=0.001, burst=2), "one", "two") as web:
        first, second = ({"authorization": f"Bearer {token}"} for token in ("one", "two"))
        found = [web.post("/v1/retrieve", json=OPEN, headers=first) for _ in range(3)]
        assert [one.status_code for one in found] == [200, 200, 429]
        assert int(found[2].headers["retry-after"]) > 900
        assert web.post("/v1/retrieve", json=OPEN, headers=second).status_code == 200
        assert web.get("/healthz").status_code == 200
    assert meter.sum("raycl_shed_requests", why="rate") == 1


class Gate:
    """A batch that answers when it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.service: Service | None = None

    async def __call__(self, work: Work) -> Outcome:
        while not self.open.is_set():
            await asyncio.sleep(0.005)
        assert self.service is not None
        return self.service.answer_batch([work])[0]


def test_what_is_above_the_limit_is_shed_and_the_rest_is_answered(tmp_path: Path) -> None:
    gate, meter = Gate(), Noted()
    running = services.service(tmp_path, batch=gate, meter=meter, guard={"max_in_flight": 3})
    gate.service = running
    services.publish(running, tmp_path)
    threading.Timer(0.3, gate.open.set).start()
    with Web(running) as web:
        found = web.at_once("/v1/retrieve", [OPEN] * 8)
        assert sorted(one.status_code for one in found) == [200] * 3 + [503] * 5
        assert {one.headers.get("retry-after") for one in found} == {None, "1"}
        assert web.post("/v1/retrieve", json=OPEN).status_code == 200
    assert meter.sum("raycl_shed_requests", why="load") == 5


def test_a_request_that_is_not_answered_by_its_deadline_is_told_so(tmp_path: Path) -> None:
    gate, meter = Gate(), Noted()
    running = services.service(tmp_path, batch=gate, meter=meter, guard={"deadline_ms": 30})
    gate.service = running
    services.publish(running, tmp_path)
    with Web(running) as web:
        late = web.post("/v1/retrieve", json=OPEN)
        assert (late.status_code, late.json()["detail"][:40]) == (504, "there was no answer by the deadline: ask")
        assert web.post("/v1/retrieve", json=OPEN, headers={"x-request-timeout-ms": "1e9"}).status_code == 504
        gate.open.set()
        assert web.post("/v1/retrieve", json=OPEN).status_code == 200
        for wrong in ("soon", "0", "-1", "nan", ""):
            assert web.post("/v1/retrieve", json=OPEN, headers={"x-request-timeout-ms": wrong}).status_code == 422
    assert meter.sum("raycl_late_requests") == 2


def test_the_log_has_one_line_a_request_and_nothing_of_its_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="raycl.requests")
    with Web(ready(tmp_path), "the-token") as web:
        headers = {"authorization": "Bearer the-token", "x-request-id": "r-7"}
        body = {"user_id": "ann@example.org", "history": [101, "secret-item"], "user": {"country": "pe"}}
        web.post("/v1/retrieve", json=body, headers=headers)
        web.get("/v1/items/secret-item/similar", params={"kind": "secret"}, headers=headers)
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "raycl.requests"]
    assert [(line["route"], line["status"], line["request_id"]) for line in lines] == [
        ("/v1/retrieve", 200, "r-7"),
        ("/v1/items/{item_id:path}/similar", 200, "r-7"),
    ]
    assert {tuple(line) for line in lines} == {("request_id", "method", "route", "status", "ms")}
    for private in ("ann", "secret", "token", "pe", "127.0.0.1"):
        assert private not in " ".join(record.getMessage() for record in caplog.records if record.name[:5] == "raycl")
