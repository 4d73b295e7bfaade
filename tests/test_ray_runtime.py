"""Numbered tasks on Ray: records in order, and errors that arrive as they were raised."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from raycl import ray_runtime
from raycl.config import RayConfig
from raycl.errors import GateRefused, InputError

pytestmark = pytest.mark.usefixtures("ray_local")


def test_records_come_in_the_order_of_their_numbers_with_keys_of_their_own() -> None:
    def task(number: int) -> dict[str, Any]:
        return {"number": number, f"only-{number}": [number, None, "x"]}

    assert ray_runtime.map_tasks("try", task, 7) == [task(number) for number in range(7)]


def test_actors_are_made_ready_once_each_and_their_records_are_those_of_tasks() -> None:
    def ready() -> ray_runtime.Task:
        made: dict[str, Any] = {"actor": uuid.uuid4().hex, "asked": 0}

        def task(number: int) -> dict[str, Any]:
            made["asked"] += 1
            return {"number": number, **made}

        return task

    found = ray_runtime.map_actors("try", ready, 6)
    assert [record["number"] for record in found] == list(range(6))
    by_actor: dict[str, list[int]] = {}
    for record in found:
        by_actor.setdefault(record["actor"], []).append(record["asked"])
    assert len(by_actor) <= 2  # the CPUs of this Ray
    assert all(sorted(asked) == list(range(1, len(asked) + 1)) for asked in by_actor.values())


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_what_only_watches_gives_way_to_what_works() -> None:
    ray_runtime._put_watchers_behind()
    priorities: dict[str, set[int]] = {}
    for pid in ray_runtime._descendants(os.getpid()):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            names = {Path(word).name.removesuffix(".py").split("::")[-1].strip() for word in words}
            threads = [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
            for name in names & {"DashboardAgent", "dashboard", "log_monitor", "monitor", "raylet", "gcs_server"}:
                priorities[name] = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    watching = {name: {10} for name in ("DashboardAgent", "dashboard", "log_monitor", "monitor")}
    assert priorities == {**watching, "raylet": {usual}, "gcs_server": {usual}}


def test_no_tasks_are_no_records() -> None:
    assert ray_runtime.map_tasks("try", lambda number: {"number": number}, 0) == []


@pytest.mark.parametrize("kind", [InputError, GateRefused])
def test_an_error_that_a_person_can_act_on_arrives_as_it_was_raised(kind: type[Exception]) -> None:
    def task(number: int) -> dict[str, Any]:
        if number == 3:
            raise kind("field=value: remedy")
        return {}

    with pytest.raises(kind, match=r"^field=value: remedy$"):
        ray_runtime.map_tasks("try", task, 5)


def test_a_refusal_is_heard_at_once_and_ends_the_tasks_under_way() -> None:
    def task(number: int) -> dict[str, Any]:
        if number == 1:
            raise InputError("field=value: remedy")
        while True:  # until it is interrupted: who waits for it waits for ever
            time.sleep(0.1)

    with pytest.raises(InputError):
        ray_runtime.map_tasks("try", task, 2)
    assert ray_runtime.map_tasks("try", lambda number: {"number": number}, 2) == [{"number": 0}, {"number": 1}]


@pytest.mark.parametrize("kind", [InputError, ZeroDivisionError])
def test_tasks_that_fail_leave_no_thread_behind(kind: type[Exception]) -> None:
    def task(number: int) -> dict[str, Any]:
        if number == 3:
            raise kind("field=value: remedy")
        return {}

    before = set(threading.enumerate())
    with pytest.raises(Exception, match="field=value: remedy"):
        ray_runtime.map_tasks("try", task, 5)
    assert set(threading.enumerate()) <= before


def test_another_error_is_rays_own() -> None:
    def task(number: int) -> dict[str, Any]:
        raise ZeroDivisionError(number)

    with pytest.raises(Exception, match="ZeroDivisionError"):
        ray_runtime.map_tasks("try", task, 1)


def test_a_long_map_says_how_far_it_is(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_runtime, "_SAY_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "raycl"):
        ray_runtime.map_tasks("try", lambda number: {"number": number}, 3)
    assert [record.getMessage() for record in caplog.records if record.name == "raycl.ray_runtime"] == [
        f"try: {done} of 3 tasks done" for done in (1, 2, 3)
    ]


def test_one_call_returns_its_record() -> None:
    assert ray_runtime.call("try", lambda: {"number": 7, "texts": ["a", None]}) == {"number": 7, "texts": ["a", None]}


@pytest.mark.parametrize("kind", [InputError, GateRefused])
def test_an_error_of_one_call_arrives_as_it_was_raised(kind: type[Exception]) -> None:
    def task() -> dict[str, Any]:
        raise kind("field=value: remedy")

    with pytest.raises(kind, match=r"^field=value: remedy$"):
        ray_runtime.call("try", task)


def test_to_connect_again_does_nothing() -> None:
    before = ray_runtime.num_cpus()
    ray_runtime.connect(RayConfig(num_cpus=1))
    assert ray_runtime.num_cpus() == before == 2.0
