"""``make bench-serve``: raycl's service beside FastAPI + FAISS by hand, and beside Qdrant's local mode."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import results
from benchmarks.results import Row
from benchmarks.serve import contenders, job
from benchmarks.serve.contenders import Place, Served

ROOT = Path(__file__).resolve().parents[2]
PER_S_GOAL = 1.5
MEDIAN_GOAL = round(1 / 1.5, 4)
_TAIL = 5.0
"""Medians that the 99th percentile may be at 80 % load."""
_CONNECTIONS = 32
_TAILS, _TAIL_S = 8, 2.0
"""Times in a round that the load is put on at 80 %, and for how long: a second in which the machine is slow is most of
a 99th percentile."""
_STEADY, _TRIES = 0.95, 30
"""How alike what a service can before and after a load must be, so that it was one of 80 %."""
_QDRANT_UP_TO = 100_000
NOTES = """The job is that of `benchmarks/serve/job.py`: histories of 1 to 20 items, ten items with scores and titles
back, over HTTP with open connections, on one core for each service and another for the load. raycl is `raycl serve`
with `serving.listen: replicas`, one replica, and all of Ray's processes on that core; the rows "by Serve's proxy" are
the same with `listen: proxy`. By hand is one process of FastAPI, the same tower and one FAISS index of the same
vectors, lists and probes (`benchmarks/serve/with_fastapi.py`). Each figure is the best of {rounds} rounds that take
turns; CPU seconds are those of all processes of a service, and tell what a core is worth also where the machine is not
quiet. At 80 % load requests come at random moments, and wait where they must; what the service can is measured before
and after, and a load does not count where the two are not alike; the row is the median of {tails} loads of {tail_s:g} s
a round. The peer in that row is {tail:g} times raycl's own median. In the rows of growth the peer is raycl's first such
row. {qdrant}"""


@dataclass
class Figures:
    """The best of some rounds."""

    per_s: float = 0.0
    per_cpu_s: float = 0.0
    median_ms: float = float("inf")
    tail_ms: list[float] = field(default_factory=list)
    tail_median_ms: list[float] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)


Start = Callable[[], AbstractContextManager[Served]]


def main() -> None:
    """Measure the contenders at each size in turn, then how raycl grows, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 2, 4], help="at the first size of items")
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 2, 3], help="at the first size of items")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="+", help="the load has the last one, growth the others")
    parser.add_argument("--scratch", type=Path, default=ROOT / "benchmarks" / "scratch" / "serve")
    parser.add_argument("--results", type=Path, default=results.FOLDER)
    parser.add_argument("--keep", action="store_true", help="keep the rows of sizes that are not measured now")
    chosen = parser.parse_args()
    cores = tuple(chosen.cores or sorted(os.sched_getaffinity(0)))
    rows: list[Row] = []
    for items in chosen.items:
        place = Place(job.workspace(chosen.scratch, items, 2), cores[:1], cores[-1:])
        rows += _beside(place, items, chosen.seconds, chosen.rounds)
    growing = _Growth(chosen.scratch, chosen.items[0], cores, chosen.seconds)
    rows += growing.rows("shards", chosen.shards) + growing.rows("replicas", chosen.replicas)
    told = "Qdrant's local mode is exact." if _has_qdrant() else "Qdrant's client is not installed, so it is left out."
    notes = NOTES.format(rounds=chosen.rounds, tail=_TAIL, tails=_TAILS, tail_s=_TAIL_S, qdrant=told)
    results.write("serve", "Answering over HTTP", rows, notes, chosen.results, keep=chosen.keep)


def _beside(place: Place, items: int, seconds: float, rounds: int) -> list[Row]:
    starts: dict[str, Start] = {
        "raycl": lambda: contenders.raycl(place),
        "proxy": lambda: contenders.raycl(place, listen="proxy"),
        "by hand": lambda: contenders.by_hand(place),
    }
    if _has_qdrant() and items <= _QDRANT_UP_TO:
        starts["qdrant"] = lambda: contenders.by_hand(place, "qdrant")
    found = {name: Figures() for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            with start() as served:
                _measure(served, found[name], seconds, tail=name == "raycl")
            results.say(
                f"{items:,} {name}: {found[name].per_s:,.0f} requests/s, median {found[name].median_ms:.2f} ms alone"
            )
    return list(_rows(f"{items / 1e6:g}M", found))


def _measure(served: Served, found: Figures, seconds: float, *, tail: bool) -> None:
    served.load(_CONNECTIONS, seconds)  # until what is made at first use is made
    found.answers = served.answers()
    before = served.cpu_s()
    said = served.load(_CONNECTIONS, seconds)
    found.per_s = max(found.per_s, said["per_s"])
    found.per_cpu_s = max(found.per_cpu_s, said["requests"] / (served.cpu_s() - before))
    found.median_ms = min(found.median_ms, served.load(1, seconds)["p50_ms"])
    if tail:
        for said in _at_80_percent(served):
            found.tail_ms.append(said["p99_ms"])
            found.tail_median_ms.append(said["p50_ms"])


def _at_80_percent(served: Served) -> list[dict[str, Any]]:
    """What the service shows at 80 % of what it can, where that is the same after it: machines change meanwhile."""
    found: list[dict[str, Any]] = []
    per_s = served.load(_CONNECTIONS, _TAIL_S)["per_s"]
    for _ in range(_TRIES):
        said = served.load(_CONNECTIONS, _TAIL_S, rate=0.8 * per_s)
        before, per_s = per_s, served.load(_CONNECTIONS, _TAIL_S)["per_s"]
        if _STEADY <= per_s / before <= 1 / _STEADY:
            found.append(said)
        if len(found) == _TAILS:
            break
    return found or [said]


def _rows(size: str, found: dict[str, Figures]) -> Iterator[Row]:
    ours, hand = found["raycl"], found["by hand"]
    equal = job.same(ours.answers, hand.answers)
    per_s = f"requests/s at {_CONNECTIONS} connections"
    yield Row(
        "one core, beside by hand", size, ours.per_s, hand.per_s, per_s, ours.per_s / hand.per_s, PER_S_GOAL, equal
    )
    ratio = ours.per_cpu_s / hand.per_cpu_s
    unit = f"requests a CPU second at {_CONNECTIONS} connections"
    yield Row("a CPU second, beside by hand", size, ours.per_cpu_s, hand.per_cpu_s, unit, ratio, PER_S_GOAL, equal)
    ratio = hand.median_ms / ours.median_ms
    yield Row("one connection, beside by hand", size, ours.median_ms, hand.median_ms, "ms", ratio, MEDIAN_GOAL, equal)
    tail, allowed = median(ours.tail_ms), _TAIL * median(ours.tail_median_ms)
    yield Row("p99 at 80 % load, beside 5 medians", size, tail, allowed, "ms", allowed / tail, 1.0, equal)
    proxied = found["proxy"]
    alike = job.same(proxied.answers, hand.answers)
    yield Row(
        "by Serve's proxy, beside by hand",
        size,
        proxied.per_s,
        hand.per_s,
        per_s,
        proxied.per_s / hand.per_s,
        None,
        alike,
    )
    if exact := found.get("qdrant"):
        # It finds all of the nearest, where eight lists of each query hold but most of them.
        alike = job.overlap(ours.answers, exact.answers) > job.MOSTLY
        yield Row(
            "beside Qdrant's local mode", size, ours.per_s, exact.per_s, per_s, ours.per_s / exact.per_s, 1.0, alike
        )


@dataclass(frozen=True)
class _Growth:
    """raycl with more of one thing, on all cores but that of the load."""

    scratch: Path
    items: int
    cores: tuple[int, ...]
    seconds: float

    def rows(self, what: str, counts: list[int]) -> list[Row]:
        rows: list[Row] = []
        first: Figures | None = None
        for count in counts:
            shards, replicas = (count, 1) if what == "shards" else (2, count)
            cores = self.cores[:-1] if what == "replicas" else self.cores[:1]
            place = Place(job.workspace(self.scratch, self.items, shards), cores or self.cores, self.cores[-1:])
            found = Figures()
            with contenders.raycl(place, replicas=replicas) as served:
                _measure(served, found, self.seconds, tail=False)
            results.say(f"{count} {what}: {found.per_s:,.0f} requests/s")
            first = first or found
            size = f"{self.items / 1e6:g}M, {count} {what}"
            equal = job.same(found.answers, first.answers)
            unit = f"requests/s, {len(place.cores)} cores"
            rows.append(
                Row(f"growth with {what}", size, found.per_s, first.per_s, unit, found.per_s / first.per_s, None, equal)
            )
        return rows


def _has_qdrant() -> bool:
    return importlib.util.find_spec("qdrant_client") is not None


if __name__ == "__main__":
    main()
