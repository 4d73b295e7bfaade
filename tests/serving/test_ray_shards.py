"""Shards as deployments of their own: the answers of one process, also while releases change and a shard dies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import ray

from raycl import journey
from raycl.config import Config, ServingConfig
from raycl.index import release
from raycl.serving import ray_app, ray_serve
from raycl.serving.api import Answer, Query
from raycl.serving.retriever import Retriever
from tests import tiny as builders

WAIT_S = 90.0
PATIENT_MS = 60_000.0
"""For one query's diversity, so that no answer is by score on a machine that is slow."""
QUERIES: list[dict[str, Any]] = [
    {"history": [103, 999, "106"], "user": {"country": "pe", "age": 31}, "k": 20, "exclude": [109]},
    {"history": [104], "k": 4, "filter": {"op": "eq", "column": "category", "value": "tea"}},
    {"history": [104, 107], "k": 4, "diversity": {"method": "dpp"}, "explain": True},
    {},
]


class Service:
    """A running service with its shards elsewhere."""

    def __init__(self, url: str, first: Config, second: Config) -> None:
        self.first, self.second = first, second
        self.http = httpx.Client(base_url=url, trust_env=False, timeout=30.0)

    def publish(self, config: Config) -> Retriever:
        """Publish, wait until it answers, and return what one process answers."""
        name = journey.publish(config).version.name
        end = time.monotonic() + WAIT_S
        while self.http.get("/v1/release").json()["release"] != name:
            assert time.monotonic() < end, self.http.get("/v1/release").text
            time.sleep(0.05)
        place = journey.workspace(config).store.under(f"releases/{name}")
        return Retriever.of(release.load(place), ServingConfig(rerank_ms=PATIENT_MS))

    def ask(self, body: dict[str, Any]) -> Answer:
        response = self.http.post("/v1/retrieve", json=body)
        assert response.status_code == 200, response.text
        return Answer.model_validate(response.json())


@pytest.fixture(scope="module")
def service(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two parts, of which one has two of the three shards, and each runs once."""
    first = builders.copied(tiny, tmp_path_factory.mktemp("sharded"))
    second = builders.retrained(first)
    sharded = builders.changed(
        first,
        "serving",
        placement="sharded",
        listen="replicas",
        num_cpus=0.5,
        rerank_ms=PATIENT_MS,
        shards={"parts": 2, "max_replicas": 1, "num_cpus": 0.5, "timeout_ms": 2_000.0},
    )
    running = Service(ray_serve.start(sharded), first, second)
    try:
        yield running
    finally:
        running.http.close()
        ray_serve.stop()


def same(found: Answer, expected: Answer) -> bool:
    """Up to the last digits of scores."""
    scores = [item.score for item in found.items] == pytest.approx([item.score for item in expected.items], abs=1e-5)
    return (
        bool(scores and [one.item_id for one in found.items] == [one.item_id for one in expected.items])
        and found.matched == expected.matched
    )


def test_sharded_answers_are_those_of_one_process_whatever_the_query_and_the_release(service: Service) -> None:
    for config in (service.first, service.second, service.first):
        truth = service.publish(config)
        for body in QUERIES:
            found = service.ask(body)
            assert same(found, truth.retrieve([Query.model_validate(body)])[0])
            assert (found.release, found.degraded) == (truth.release, [])
    similar = Answer.model_validate(service.http.get("/v1/items/103/similar", params={"k": 4}).json())
    assert same(similar, truth.answer([truth.check_similar("103", {}, Query(k=4))])[0])


def test_a_shard_that_dies_is_told_and_missed_and_comes_back(service: Service) -> None:
    truth = service.publish(service.first)
    whole = truth.retrieve([Query(history=[103], k=20)])[0]
    every = truth.retrieve([Query(history=[103], k=builders.NUM_ITEMS)])[0]
    scores = {item.item_id: item.score for item in every.items}
    (victim,) = [
        actor for actor in ray.util.list_named_actors(all_namespaces=True) if f"{ray_app.NAME}#Shard1#" in actor["name"]
    ]
    ray.kill(ray.get_actor(victim["name"], victim["namespace"]))
    seen, end = {True: 0, False: 0}, time.monotonic() + WAIT_S
    while not seen[False] or seen[False] < 3:
        assert time.monotonic() < end, "the shard does not come back"
        answer = service.ask({"history": [103], "k": 20})
        degraded = answer.degraded == ["shards"]
        seen[degraded] = seen[degraded] + 1 if degraded else seen[False] + 1
        assert answer.release == truth.release
        if not degraded:
            assert same(answer, whole)
        assert all(item.score == pytest.approx(scores[item.item_id], abs=1e-5) for item in answer.items)
    assert seen[True], "no answer was given without the shard"
