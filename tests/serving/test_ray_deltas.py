"""Items that are handed in while the real service answers: seen by every replica, refused if broken, carried over."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from raycl import journey
from raycl.config import Config
from raycl.index import deltas, hand_in, releases
from raycl.index.hand_in import Summary
from raycl.serving import ray_serve
from tests import tiny as builders
from tests.index.handed import handed, rows

WITHIN_S = 60.0
IN_A_ROW = 40
"""Answers of one hand-in, after which every replica has very likely been asked."""


class Service:
    """A running service of two replicas on a workspace whose first release is current."""

    def __init__(self, first: Config, second: Config, http: httpx.Client) -> None:
        self.workspace, self.second, self.http = journey.workspace(first), second, http

    def post(self, **body: Any) -> dict[str, Any]:
        response = self.http.post("/v1/retrieve", json={"k": 20, **body})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def hand_in(self, *given: Any) -> tuple[Summary, float]:
        """Hand in, and return what was said and the seconds until every replica answers with it."""
        done = hand_in.to_current(self.workspace, handed(*given))
        began = time.monotonic()
        self.wait_for_hand_in(done.number)
        return done, time.monotonic() - began

    def wait_for_hand_in(self, number: int) -> None:
        """Until every replica answers with it."""
        self.wait(lambda: all(self.post()["delta"] >= number for _ in range(IN_A_ROW)))

    def wait(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + WITHIN_S
        while not holds():
            assert time.monotonic() < end, "it does not come to hold"


@pytest.fixture(scope="module")
def service(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    first = builders.copied(tiny, tmp_path_factory.mktemp("deltas"))
    second = builders.retrained(first)
    url = ray_serve.start(builders.changed(first, "serving", min_replicas=2, max_replicas=2, max_k=40))
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=30.0) as http:
            yield Service(first, second, http)
    finally:
        ray_serve.stop()


def test_what_is_handed_in_under_load_is_seen_by_every_replica_and_no_request_fails(service: Service) -> None:
    answers: list[dict[str, Any]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.append(service.post(history=[101, 104], filter={"op": "eq", "column": "category", "value": "tea"}))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        came, seconds = service.hand_in(rows(900, 901), [107])
        gone, seconds_again = service.hand_in(rows(901, category="rope"), [900])
    finally:
        done.set()
        for thread in threads:
            thread.join()
    print(f"a hand-in answers after {seconds:.2f} s, the next one after {seconds_again:.2f} s, with 2 replicas")
    assert (came.new, came.removed, gone.changed, gone.removed) == (2, 1, 1, 1)
    for answer in answers:
        ids = {item["item_id"] for item in answer["items"]}
        expected = [{107} <= ids and not {900, 901} & ids, {900, 901} <= ids and 107 not in ids]
        expected.append(not {900, 901, 107} & ids)
        assert expected[answer["delta"] - came.number + 1]
    assert service.http.get("/v1/release").json()["delta"] == gone.number
    similar = service.http.get("/v1/items/901/similar", params={"k": 3}).json()
    assert (similar["basis"], len(similar["items"]), similar["delta"]) == ("item", 3, gone.number)


def test_a_broken_hand_in_is_told_and_the_service_goes_on(service: Service) -> None:
    before = service.post(history=[101])
    built = releases.named(service.workspace, None)
    number = deltas.write(service.workspace.store, built, handed(rows(905)))
    folder = deltas.folder_of(service.workspace.store, built.name)
    segment = json.loads(folder.read(f"{number:06d}.json"))
    deltas.withdraw(service.workspace.store, built, number)
    folder.write(f"{number + 2:06d}.json", json.dumps(segment | {"sha256": "0" * 64}).encode())
    service.wait_for_hand_in(number + 1)  # the one that takes back: each replica may have seen what it takes
    service.wait(lambda: f"{segment['data']} has SHA-256" in str(service.http.get("/v1/release").json()["problem"]))
    assert service.post(history=[101])["items"] == before["items"]
    deltas.withdraw(service.workspace.store, built, number + 2)
    service.wait(lambda: service.http.get("/v1/release").json()["problem"] is None)


def test_the_next_release_has_what_was_handed_in_from_its_first_answer_on(service: Service) -> None:
    service.hand_in(rows(910), [112])
    name = journey.publish(service.second).version.name

    def taken() -> bool:
        answer = service.post()
        assert 112 not in {item["item_id"] for item in answer["items"]}
        return bool(answer["release"] == name)

    service.wait(taken)
    found = service.post(history=[101], k=40)
    ids = {item["item_id"] for item in found["items"]}
    assert {901, 910} <= ids
    assert not {107, 112, 900} & ids
