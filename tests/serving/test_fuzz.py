"""Malformed requests, made from the schema that the service itself shows: never a failure, never a leak."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from tests.serving import services
from tests.serving.malformed import Maker
from tests.serving.services import Web

TOKEN = "token-of-the-fuzz"
GOOD = {"history": [101, 103], "k": 4, "filter": {"op": "not", "of": {"op": "eq", "column": "kind", "value": "lamp"}}}
REFUSALS = {400, 401, 404, 405, 413, 422}


def fuzzed(folder: Path, seed: int, count: int) -> Counter[int]:
    """How often each status came; after every 50th request a good one is answered as before."""
    running = services.service(folder, max_k=50, filters={"available": "stock"}, guard={"max_body_bytes": 200_000})
    services.publish(running, folder)
    statuses: Counter[int] = Counter()
    allowed = {"authorization": f"Bearer {TOKEN}"}
    with Web(running, TOKEN) as web:
        maker = Maker(web.get("/openapi.json").json(), seed)
        expected = web.post("/v1/retrieve", json=GOOD, headers=allowed).json()
        assert len(expected["items"]) == 3
        for number in range(count):
            made = maker.request()
            headers = [(name, value) for name, value in made.headers.items()] + [
                ("authorization", f"Bearer {TOKEN}".encode())
            ]
            found = web.request(made.method, made.path, content=made.content, headers=headers)
            assert found.status_code == 200 or found.status_code in REFUSALS, (made, found.text)
            for leak in ("Traceback", 'File "', TOKEN, str(folder), "site-packages", "pydantic", "0x7f"):
                assert leak not in found.text, (made, found.text)
            if found.status_code != 200 and made.method != "HEAD":
                assert sorted(found.json()) == ["detail", "request_id"], made
                assert len(found.content) < 40_000
            statuses[found.status_code] += 1
            if number % 50 == 0:
                assert web.post("/v1/retrieve", json=GOOD, headers=allowed).json() == expected
    return statuses


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_malformed_requests_are_refused_and_the_next_good_one_is_answered(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    statuses = fuzzed(tmp_path, seed, 1_000)
    assert statuses[200] > 50
    assert statuses[422] > 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.long
def test_a_hundred_thousand_malformed_requests(tmp_path: Path) -> None:
    statuses = fuzzed(tmp_path, 0, 100_000)
    assert statuses[422] > 20_000
