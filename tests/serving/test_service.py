"""Batches across requests: each request keeps its own outcome, and all of a batch come from one release."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from raycl.errors import InputError
from raycl.serving import remote
from raycl.serving.api import Answer, Event, Query
from raycl.serving.retriever import Retriever
from raycl.serving.service import Outcome, Service, Similar, TooLate, Work
from raycl.serving.sessions import Sessions
from tests.serving import builders, services
from tests.serving.services import Noted

FAR = 10.0**12
POISON = 107


@pytest.fixture
def running(tmp_path: Path) -> Service:
    made = services.service(tmp_path)
    services.publish(made, tmp_path)
    return made


def work(*bodies: dict[str, Any], deadline: float = FAR) -> Work:
    return Work([Query.model_validate(body) for body in bodies], [[]] * len(bodies), deadline)


def test_requests_of_a_batch_have_the_answers_that_they_have_alone(running: Service) -> None:
    works = [
        work({"history": [101]}, {"k": 3}),
        work({"user": {"city": "lima"}}),
        work({"history": [103, 104], "explain": True}),
        Work([Query(k=2)], [[]], FAR, Similar("103", {})),
        work({"history": [101]}, {"filter": {"op": "available"}}),
    ]
    together = running.answer_batch(works)
    for one, outcome in zip(works, together, strict=True):
        (alone,) = running.answer_batch([one])
        assert isinstance(outcome, InputError) == isinstance(alone, InputError)
        assert isinstance(outcome, InputError) or outcome == alone
    assert [isinstance(one, InputError) for one in together] == [False, True, False, False, True]


def test_a_request_that_breaks_the_batch_fails_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def encode(history: builders.Histories, features: Any, age_s: builders.Vectors, context: Any) -> builders.Vectors:
        if (history == builders.IDS.index(POISON)).any():
            raise RuntimeError("poison")
        return builders.encode(history, features, age_s, context)

    def load(name: str, *, quietly: bool) -> Retriever:
        return builders.retriever(release=name, encode=encode)

    made = services.service(tmp_path, load)
    services.publish(made, tmp_path)
    good, bad, other = made.answer_batch(
        [work({"history": [101]}), work({"history": [POISON]}), work({"history": [103]})]
    )
    assert isinstance(bad, RuntimeError)
    assert isinstance(good, list)
    assert isinstance(other, list)
    assert "each is tried alone" in caplog.text


def test_a_posted_event_is_as_old_as_the_time_since_it_was_posted(tmp_path: Path) -> None:
    seen: list[list[float]] = []

    def encode(history: builders.Histories, features: Any, age_s: builders.Vectors, context: Any) -> builders.Vectors:
        seen.extend(age_s.tolist())
        return builders.encode(history, features, age_s, context)

    def load(name: str, *, quietly: bool) -> Retriever:
        return builders.retriever(release=name, encode=encode, clock=lambda: 1_000.0)

    made = services.service(tmp_path, load)
    made.sessions = Sessions(made.config.sessions, clock=lambda: 900.0)
    services.publish(made, tmp_path)
    made.remember([Event(user_id="ann", item_id=103)])
    asyncio.run(made.retrieve([Query(user_id="ann", history=[101, 102], times=[200.0, 400.0])], 60.0))
    assert seen[-1] == [100.0, 600.0, 800.0]


def test_nobody_is_answered_whose_deadline_passed_in_the_queue(running: Service) -> None:
    late, good = running.answer_batch([work({"history": [101]}, deadline=0.0), work({"history": [101]})])
    assert isinstance(late, TooLate)
    assert isinstance(good, list)


def test_all_of_a_batch_come_from_the_release_at_its_start(tmp_path: Path) -> None:
    made: list[Service] = []

    def load(name: str, *, quietly: bool) -> Retriever:
        def encode(
            history: builders.Histories, features: Any, age_s: builders.Vectors, context: Any
        ) -> builders.Vectors:
            if name == "r1":
                services.publish(made[0], tmp_path, "r2")  # while r1 answers
            return builders.encode(history, features, age_s, context)

        return builders.retriever(release=name, encode=encode)

    made.append(services.service(tmp_path, load))
    services.publish(made[0], tmp_path, "r1")
    outcomes = made[0].answer_batch([work({"history": [101]}, {}), work({"user": {"age": 3}})])
    names = [answer.release for outcome in outcomes if isinstance(outcome, list) for answer in outcome]
    assert names == ["r1"] * 3
    assert made[0].described().release == "r2"


def test_phases_are_measured(tmp_path: Path) -> None:
    meter = Noted()
    made = services.service(tmp_path, meter=meter)
    services.publish(made, tmp_path)
    made.answer_batch([work({"history": [101]}), work({})])
    phases = [tags["phase"] for name, _, tags in meter.told if name == "raycl_phase_seconds"]
    assert phases == ["encode", "search", "rerank", "explain", "describe"]


def test_a_retrieval_is_a_batch_of_one_where_nothing_else_is_given(running: Service) -> None:
    (answer,) = asyncio.run(running.retrieve([Query(history=[101], k=2)], 5.0))
    assert isinstance(answer, Answer)
    assert len(answer.items) == 2


def test_answers_without_all_shards_say_so_and_those_of_popularity_need_none(tmp_path: Path) -> None:
    meter = Noted()
    silent = {1}

    def ask(questions: Sequence[remote.Question]) -> list[Any]:
        return [None if part in silent else builders.search(*how) for part, _, how in questions]

    def load(name: str, *, quietly: bool) -> Retriever:
        parts = remote.Parts(ask, 2)

        def search(vectors: builders.Vectors, k: builders.Ids) -> tuple[builders.Ids, builders.Vectors]:
            return next(iter(parts.each("probe", vectors, k).values()))  # type: ignore[no-any-return]

        return builders.retriever(release=name, search=search)

    made = services.service(tmp_path, load, meter=meter)
    services.publish(made, tmp_path)
    works = [work({"history": [101]}), work({})]
    (some, popular) = made.answer_batch(works)
    assert not isinstance(some, Exception)
    assert not isinstance(popular, Exception)
    assert (some[0].degraded, popular[0].degraded) == (["shards"], [])
    assert meter.sum("raycl_degraded_answers", what="shards") == 1
    assert meter.sum("raycl_lost_shards") == 1
    silent |= {0}
    (none, popular) = made.answer_batch(works)
    assert isinstance(none, remote.NoShard)
    assert not isinstance(popular, Exception)
    assert popular[0].degraded == []
    silent.clear()
    (whole,) = made.answer_batch(works[:1])
    assert not isinstance(whole, Exception)
    assert whole[0].degraded == []


@pytest.mark.parametrize("within_s", [0.02, 10.0])
def test_a_caller_who_goes_away_is_not_told_that_it_was_late(tmp_path: Path, within_s: float) -> None:
    """Also where its time has run out in the very same turn of the loop."""
    asked: list[asyncio.Future[Outcome]] = []

    def batch(_: Work) -> asyncio.Future[Outcome]:
        asked.append(asyncio.get_running_loop().create_future())
        return asked[-1]

    running = services.service(tmp_path, batch=batch)
    services.publish(running, tmp_path)

    async def leave() -> asyncio.Task[Any]:
        task = asyncio.create_task(running.retrieve([Query()], within_s))
        asyncio.get_running_loop().call_later(0.03, task.cancel)
        await asyncio.sleep(0)
        time.sleep(0.06)  # so that both come due in one turn
        await asyncio.wait([task])
        return task

    assert asyncio.run(leave()).cancelled()
    assert asked[0].cancelled()
