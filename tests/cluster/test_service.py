"""The service under load: releases that change, processes that die, replicas that come and go. It prints its times."""

from __future__ import annotations

import functools
import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks.serve import contenders, job
from benchmarks.serve.contenders import Place, Served
from raycl.index import release
from raycl.serving.api import Query
from raycl.serving.retriever import Retriever
from raycl.storage import pointer
from raycl.storage.store import Store
from raycl.storage.versions import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.long]

ITEMS, NUM_RELEASES, NUM_SWAPS, NUM_REQUESTS = 200_000, 3, 20, 100
_WITHIN_S = 90.0
_SMALL: dict[str, Any] = {"num_cpus": 0.3, "poll_s": 0.2}

Expected = dict[str, list[dict[int, float]]]
"""By release, of each request the score of each item."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A workspace with three releases, the first of them published, and a hundred requests."""
    folder = tmp_path_factory.mktemp("service")
    space = Workspace(Store(str(folder)))
    names = [job.add_release(space, ITEMS, 2, seed).name for seed in range(NUM_RELEASES)]
    pointer.publish(space.store, names[0])
    asked = job.requests(ITEMS)[:NUM_REQUESTS]
    (folder / "requests.jsonl").write_text("\n".join(json.dumps(one) for one in asked))
    cores = tuple(sorted(os.sched_getaffinity(0)))
    return Place(folder, cores[:-1] or cores, cores[-1:])


@pytest.fixture(scope="module")
def expected(place: Place) -> Expected:
    """What one process answers, of twice as many items as are asked for, so that those after a lost shard are there."""
    store = Store(str(place.workspace))
    asked = [Query.model_validate_json(line) for line in place.requests.read_text().splitlines()]
    more = [query.model_copy(update={"k": 50}) for query in asked]
    found: Expected = {}
    for name in names(place):
        answers = Retriever.of(release.load(store.under(f"releases/{name}"))).retrieve(more)
        found[name] = [{int(item.item_id): item.score for item in answer.items} for answer in answers]
    return found


def names(place: Place) -> list[str]:
    return Workspace(Store(str(place.workspace))).finished("releases")


def checked(answers: Sequence[tuple[int, str]], expected: Expected) -> dict[str, int]:
    """How many answers each release gave, and how many were degraded, once every one is that of its release."""
    counts: dict[str, int] = {"degraded": 0}
    for place, body in answers:
        answer = json.loads(body)
        scores = expected[answer["release"]][place]
        found = {int(item["item_id"]): item["score"] for item in answer["items"]}
        counts[answer["release"]] = counts.get(answer["release"], 0) + 1
        if answer["degraded"]:
            counts["degraded"] += 1
        else:
            best = sorted(scores.values(), reverse=True)[: len(found)]
            np.testing.assert_allclose(sorted(found.values(), reverse=True), best, atol=1e-4)
        for item, score in found.items():
            assert score == pytest.approx(scores.get(item, score), abs=1e-4)
            assert item in scores or answer["degraded"]
    return counts


def get(served: Served, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}{path}", timeout=10.0) as response:
        return dict(json.load(response))


def answers(served: Served, name: str) -> bool:
    return bool(get(served, "/v1/release")["release"] == name)


def whole(served: Served, expected: Expected) -> dict[str, int]:
    return checked(served.load(1, 0.5, keep_all=True)["answers"], expected)


def wait_for(holds: Callable[[], bool], what: str) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < _WITHIN_S, what
        time.sleep(0.05)
    return time.monotonic() - began


def replicas(served: Served, deployment: str) -> list[psutil.Process]:
    """Processes of the replicas of a deployment."""
    found = []
    for one in served.process.children(recursive=True):
        try:
            if f"ServeReplica:raycl:{deployment}" in " ".join(one.cmdline()):
                found.append(one)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def test_twenty_swaps_under_load_fail_no_request_mix_no_releases_and_hardly_delay_answers(
    place: Place, expected: Expected, pool: ThreadPoolExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(place.workspace))
    order = names(place)
    with contenders.raycl(place, **_SMALL) as served:
        served.load(16, 3.0)
        capacity = served.load(16, 3.0)["per_s"]
        quiet = served.load(16, 5.0, rate=capacity / 2)
        loaded = pool.submit(served.load, 16, 60.0, rate=capacity / 2, keep_all=True)
        swaps: list[tuple[float, float]] = []
        time.sleep(1.0)
        for swap in range(NUM_SWAPS):
            name, began = order[(swap + 1) % NUM_RELEASES], time.time()
            pointer.publish(store, name)
            wait_for(functools.partial(answers, served, name), f"{name} does not answer")
            swaps.append((began, time.time()))
            time.sleep(0.5)
        said = loaded.result()
    ended, taken = np.array(said["times"]).T
    assert said["failures"] == 0
    assert swaps[-1][1] < ended.max(), "the load ended before the last swap"
    during = [(ended >= began) & (ended <= until + 0.1) for began, until in swaps]
    each_ms = [float(np.percentile(taken[one], 99)) for one in during]
    in_any = np.any(during, axis=0)
    counts = checked(said["answers"], expected)
    each_s = sum(until - began for began, until in swaps) / NUM_SWAPS
    with capsys.disabled():
        print(
            f"\n{NUM_SWAPS} swaps at {capacity / 2:,.0f} requests/s, {each_s:.2f} s each: p99 {quiet['p99_ms']:.1f} ms"
            f" before, {np.median(each_ms):.1f} ms during the median swap, {max(each_ms):.1f} ms during the worst,"
            f" {np.percentile(taken[in_any], 99):.1f} ms during all, {np.percentile(taken[~in_any], 99):.1f} ms between"
            f" and after"
        )
    assert np.median(each_ms) <= 2 * quiet["p99_ms"]
    assert counts.pop("degraded") == 0
    assert set(counts) == set(order)


@pytest.mark.parametrize(("deployment", "how"), [("Retrieval", {"replicas": 2, "listen": "proxy"}), ("Shard1", {})])
def test_a_process_that_dies_under_load_makes_no_answer_wrong_and_comes_back(
    place: Place,
    expected: Expected,
    pool: ThreadPoolExecutor,
    capsys: pytest.CaptureFixture[str],
    deployment: str,
    how: dict[str, Any],
) -> None:
    sharded = {"placement": "sharded", "shards": {"parts": 2, "max_replicas": 1, "num_cpus": 0.3}}
    with contenders.raycl(place, **_SMALL, **(how or sharded)) as served:
        served.load(8, 3.0)
        loaded = pool.submit(served.tried, 8, 30.0, keep_all=True)
        time.sleep(3.0)
        victim = replicas(served, deployment)[0]
        killed = time.time()
        os.kill(victim.pid, signal.SIGKILL)
        back_s = wait_for(
            lambda: any(one.pid != victim.pid and one.create_time() > killed for one in replicas(served, deployment)),
            "no replica comes in the place of the one that died",
        )
        said = loaded.result()
        wait_for(lambda: not whole(served, expected)["degraded"], "answers go on without a shard")
        after = served.load(8, 3.0, keep_all=True)
    counts = checked(said["answers"], expected)
    with capsys.disabled():
        print(
            f"\n{deployment} killed: another process after {back_s:.1f} s; of {said['requests']:,} requests"
            f" {said['failures']} failed ({said['failed_with'][:2]}) and {counts['degraded']} lacked a shard"
        )
    assert checked(after["answers"], expected)["degraded"] == 0
    if deployment == "Retrieval":
        assert said["failures"] < said["requests"] / 10
    else:
        assert said["failures"] == 0
        assert counts["degraded"] > 0


@pytest.mark.parametrize("listen", ["proxy", "replicas"])
def test_replicas_rise_under_load_and_fall_after_it_without_a_failed_request(
    place: Place, pool: ThreadPoolExecutor, capsys: pytest.CaptureFixture[str], listen: str
) -> None:
    scaling: dict[str, Any] = {
        "max_replicas": 3,
        "target_ongoing_requests": 4,
        "upscale_delay_s": 1.0,
        "downscale_delay_s": 3.0,
    }
    with contenders.raycl(place, listen=listen, **_SMALL, **scaling) as served:
        served.load(4, 2.0)
        assert len(replicas(served, "Retrieval")) == 1
        loaded = pool.submit(served.load, 32, 40.0)
        up_s = wait_for(lambda: len(replicas(served, "Retrieval")) > 1, "no replica is added")
        loaded.result()
        some = pool.submit(served.load, 1, 40.0)
        down_s = wait_for(lambda: len(replicas(served, "Retrieval")) == 1, "no replica goes")
        some.result()
    with capsys.disabled():
        print(f"\n{listen}: a second replica after {up_s:.1f} s of load, one again {down_s:.1f} s after it")
