"""The real application over HTTP: answers, refusals, and new releases under load."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from raycl import journey, ports
from raycl.config import Config
from raycl.errors import ConfigError, InputError, RayclError
from raycl.index import release
from raycl.serving import client, ray_app, ray_serve
from raycl.serving.api import Answer, Query
from raycl.serving.retriever import Retriever
from raycl.storage import pointer
from raycl.storage.store import Store
from tests import tiny as builders

WAIT_S = 60.0


@dataclass
class Service:
    """A running service, the two releases that it may be given, and what it said before it had one."""

    url: str
    first: Config
    second: Config
    http: httpx.Client
    before: dict[str, httpx.Response] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return journey.workspace(self.first).store

    def post(self, **body: Any) -> httpx.Response:
        return self.http.post("/v1/retrieve", json=body)

    def described(self) -> dict[str, Any]:
        return dict(self.http.get("/v1/release").json())

    def publish(self, config: Config) -> str:
        """Publish the release of ``config``, wait until it answers, and return its name."""
        name = journey.publish(config).version.name
        wait_until(lambda: self.described() == {"release": name, "delta": 0, "problem": None})
        return name

    def truth(self, name: str) -> Retriever:
        """What this release answers in one process."""
        return Retriever.of(release.load(self.store.under(f"releases/{name}")))


def wait_until(holds: Callable[[], bool]) -> None:
    """Ask again and again until it holds."""
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def service(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The application on a workspace with two releases; the first is published once the service runs."""
    first = builders.copied(tiny, tmp_path_factory.mktemp("service"))
    second = builders.retrained(first)
    journey.workspace(first).store.delete_folder(pointer.FOLDER)
    url = ray_serve.start(first)
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=30.0) as http:
            running = Service(url, first, second, http)
            running.before = {
                "answer": running.post(history=[]),
                "release": http.get("/v1/release"),
                "health": http.get("/healthz"),
                "ready": http.get("/readyz"),
            }
            running.publish(first)
            yield running
    finally:
        ray_serve.stop()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({}, r"args=\[\]"),
        ({"workspace": "w", "servign": {}}, r"args=\['servign', 'workspace'\]"),
        ({"serving": {}}, ""),
    ],
)
def test_the_application_refuses_arguments_that_it_does_not_know(args: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told + ".*: give 'workspace' and, if wanted, 'serving', nothing else"):
        ray_app.build(args)


@pytest.mark.parametrize(
    ("serving", "told"),
    [
        ({"bogus": 1}, r"^serving\.bogus=1: unknown key; known keys: host, port, "),
        ({"maxk": 5}, r"^serving\.maxk=5: unknown key; did you mean 'max_k'\?$"),
        ({"max_k": 0}, r"^serving\.max_k=0: input should be greater than or equal to 1$"),
        (None, r"^serving=None: write keys and values"),
    ],
)
def test_a_bad_serving_part_is_told_by_field(serving: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ray_app.build({"workspace": "w", "serving": serving})


def test_before_the_first_release_the_answer_is_503_and_says_what_to_run(service: Service) -> None:
    assert service.before["answer"].status_code == 503
    assert service.before["answer"].json()["detail"].startswith("no release answers yet: publish one, and ask again")
    assert service.before["answer"].headers["retry-after"] == "1"
    assert (service.before["ready"].status_code, service.http.get("/readyz").status_code) == (503, 200)
    assert service.before["release"].json() == {"release": None, "delta": 0, "problem": None}
    assert service.before["health"].json() == {"status": "ok"}


def test_an_answer_over_http_is_that_of_one_process(service: Service) -> None:
    name = service.publish(service.first)
    query = Query(history=[103, 999, "106"], user={"country": "pe", "age": 31}, k=20, exclude=[109])
    response = service.post(**query.model_dump())
    assert response.status_code == 200
    answer = Answer.model_validate(response.json())
    (expected,) = service.truth(name).retrieve([query])
    assert [item.item_id for item in answer.items] == [item.item_id for item in expected.items]
    assert [item.score for item in answer.items] == pytest.approx([item.score for item in expected.items], abs=1e-5)
    assert (answer.release, answer.short, answer.unknown_history) == (name, False, 1)
    assert not {103, 106, 109} & {item.item_id for item in answer.items}


def test_answers_carry_titles_and_displayed_columns(service: Service) -> None:
    """Of every item, also of the one without a title and of the one whose price is not a number."""
    seen: dict[int, dict[str, Any]] = {}
    for history in ([], [101], [102], [103]):
        answer = service.post(history=history, k=20, exclude_history=False)
        assert answer.status_code == 200, answer.text
        seen |= {item["item_id"]: item for item in answer.json()["items"]}
        rest = service.post(exclude=sorted(seen), k=20)
        seen |= {item["item_id"]: item for item in rest.json()["items"]}
    assert sorted(seen) == [builders.FIRST_ITEM + row for row in range(builders.NUM_ITEMS)]
    for one, item in seen.items():
        row = one - builders.FIRST_ITEM
        assert item["title"] == (f"Item {one}" if row else None)
        assert item["display"]["category"] == ("tea", "rope", "lamp")[row % 3]
        assert item["display"]["price"] == (1.5 * row if row < builders.NUM_ITEMS - 1 else None)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"user": {"city": "lima"}}, "user.city='lima': the release knows no such feature; it knows country, age"),
        ({"user": {"age": "old"}}, "user.age: 'old' is not a numeric value"),
        ({"k": 21}, "k=21 is above serving.max_k=20: ask for fewer"),
    ],
)
def test_what_the_release_cannot_answer_is_refused_with_the_remedy(
    service: Service, body: dict[str, Any], told: str
) -> None:
    response = service.post(**body)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(told)


@pytest.mark.parametrize("body", [{"k": 0}, {"k": "many"}, {"history": "101"}, {"histroy": [101]}])
def test_a_body_that_is_no_query_is_refused_by_field(service: Service, body: dict[str, Any]) -> None:
    response = service.post(**body)
    assert response.status_code == 422
    assert [problem["loc"] for problem in response.json()["detail"]] == [["body", *body]]


def test_a_body_that_is_no_json_is_refused(service: Service) -> None:
    response = service.http.post("/v1/retrieve", content=b"{half", headers={"content-type": "application/json"})
    assert response.status_code == 422


def test_similar_items_fresh_events_and_wishes_go_through_the_replica(service: Service) -> None:
    name = service.publish(service.first)
    whole = service.truth(name)
    similar = Answer.model_validate(service.http.get("/v1/items/103/similar", params={"k": 4}).json())
    (expected,) = whole.answer([whole.check_similar("103", {}, Query(k=4))])
    assert [item.item_id for item in similar.items] == [item.item_id for item in expected.items]
    posted = [{"user_id": "ann", "item_id": item} for item in (104, 107)]
    assert service.http.post("/v1/events", json={"events": posted}).json() == {"accepted": 2}
    wish = {"filter": {"op": "eq", "column": "category", "value": "tea"}, "explain": True, "k": 4}
    queries = [{"user_id": "ann", **wish}, {"history": [104, 107], "diversity": {"method": "dpp"}, "k": 4}]
    found = service.post(queries=queries).json()
    (fresh,) = whole.retrieve([Query.model_validate({"history": [104, 107], **wish})])
    assert found["release"] == name
    assert [item["item_id"] for item in found["answers"][0]["items"]] == [item.item_id for item in fresh.items]
    assert {item["display"]["category"] for item in found["answers"][0]["items"]} == {"tea"}
    assert {reason["item_id"] for reason in found["answers"][0]["items"][0]["reasons"]["events"]} == {104, 107}
    assert len(found["answers"][1]["items"]) == 4


def test_requests_at_once_answer_as_requests_in_turn(service: Service) -> None:
    """Concurrent queries share batches, and each gets its own answer."""
    queries = [{"history": [101 + row], "k": 1 + row % 7, "user": {"age": row}} for row in range(24)]
    in_turn = [service.post(**query).json() for query in queries]
    at_once: dict[int, Any] = {}

    def ask(place: int) -> None:
        at_once[place] = service.post(**queries[place]).json()

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(queries))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, expected in enumerate(in_turn):
        assert [item["item_id"] for item in at_once[place]["items"]] == [item["item_id"] for item in expected["items"]]


def test_without_a_number_there_are_ten_items(service: Service) -> None:
    service.publish(service.first)
    assert len(service.post(history=[101]).json()["items"]) == 10


def test_a_new_release_takes_over_between_requests(service: Service) -> None:
    """No request fails, none mixes two releases, and once the new one answered the old one does not."""
    old = service.publish(service.first)
    query = Query(history=[104, 107], k=8)
    answers: list[list[httpx.Response]] = [[], [], [], []]
    done = threading.Event()

    def ask(mine: list[httpx.Response]) -> None:
        while not done.is_set():
            mine.append(service.post(**query.model_dump()))

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in answers]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(len(mine) >= 5 for mine in answers))
        new = service.publish(service.second)
        reached = [len(mine) for mine in answers]
        wait_until(lambda: all(len(mine) > count + 1 for mine, count in zip(answers, reached, strict=True)))
    finally:
        done.set()
        for thread in threads:
            thread.join()

    expected = {name: service.truth(name).retrieve([query])[0] for name in (old, new)}
    assert [item.item_id for item in expected[old].items] != [item.item_id for item in expected[new].items]
    for mine in answers:
        assert {response.status_code for response in mine} == {200}
        found = [Answer.model_validate(response.json()) for response in mine]
        names = [answer.release for answer in found]
        assert names == sorted(names, key=[old, new].index)
        assert (names[0], names[-1]) == (old, new)
        for answer in found:
            assert [item.item_id for item in answer.items] == [item.item_id for item in expected[answer.release].items]


def test_a_damaged_newer_release_leaves_the_old_one_answering(service: Service) -> None:
    good = service.publish(service.second)
    bad = f"{good[:18]}-{'0' * 12}"
    folder = Path(service.store.full(f"releases/{bad}"))
    shutil.copytree(service.store.full(f"releases/{good}"), folder)
    (folder / release.shard_file(1)).write_bytes(b"not an index")
    pointer.publish(service.store, bad)
    wait_until(lambda: service.described()["problem"] is not None)
    described = service.described()
    assert described["release"] == good
    assert described["problem"].startswith("CorruptRelease: ")
    assert f"{bad}/shards/00001.faiss has SHA-256" in described["problem"]
    assert service.post(history=[101]).json()["release"] == good
    assert service.publish(service.first) != good


def test_the_client_returns_what_the_service_answers(service: Service) -> None:
    name = service.publish(service.first)
    answer = client.ask(f"{service.url}/", Query(history=[103], k=3))
    assert answer.release == name
    assert [item.item_id for item in answer.items] == [
        item["item_id"] for item in service.post(history=[103], k=3).json()["items"]
    ]


def test_the_client_tells_a_refusal_from_a_failure(service: Service) -> None:
    with pytest.raises(InputError, match=r"the service refuses the query: k=21 is above serving\.max_k=20"):
        client.ask(service.url, Query(k=21))
    with pytest.raises(RayclError, match="answered 404"):
        client.ask(f"{service.url}/elsewhere", Query())


def test_a_port_that_is_taken_is_a_bad_config(service: Service) -> None:
    taken = int(service.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=rf"serving\.port={taken} on 127\.0\.0\.1 is taken .*: choose another, or 0"):
        ray_serve.start(builders.changed(service.first, "serving", port=taken))
    assert service.http.get("/healthz").status_code == 200


def test_serve_that_listens_elsewhere_already_is_a_bad_config(service: Service) -> None:
    listens = service.url.removeprefix("http://")
    (free,) = ports.free(1)
    with pytest.raises(ConfigError, match=rf"serving\.port={free}, but Serve .* listens at {listens} already"):
        ray_serve.start(builders.changed(service.first, "serving", port=free))
    assert service.http.get("/healthz").status_code == 200


def test_replicas_that_listen_at_the_port_of_the_proxy_are_a_bad_config(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would share the port among them, since proxies on Ray's own let others have it too."""
    port = int(service.url.rpartition(":")[2])
    monkeypatch.setattr(ray_serve, "_require_free", lambda host, port: None)
    with pytest.raises(ConfigError, match=rf"serving\.port={port} with serving\.listen=replicas is where Serve's own"):
        ray_serve.start(builders.changed(service.first, "serving", port=port, listen="replicas"))
    assert service.http.get("/healthz").status_code == 200


def test_a_service_that_is_started_again_answers_at_the_url_that_it_returns(service: Service) -> None:
    """The last test of this module: Serve keeps its first port for as long as its Ray lives.

    It may give fewer items than the ten of a request that names no number, and ask for a token of its environment.
    """
    ray_serve.stop()
    assert service.http.get("/healthz").status_code == 404
    token = os.environ["HOME"]
    url = ray_serve.start(builders.changed(service.first, "serving", max_k=4, guard={"token_env": "HOME"}))
    few = client.ask(url, Query(), token=token)
    assert (len(few.items), few.short) == (4, False)
    with pytest.raises(InputError, match=r"k=10 is above serving\.max_k=4"):
        client.ask(url, Query(k=10), token=token)
    assert client.ask(url, Query(k=2), token=token).release == journey.publish(service.first).version.name
    with pytest.raises(RayclError, match="answered 401"):
        client.ask(url, Query(k=2))
