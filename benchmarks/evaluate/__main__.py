"""``make bench-evaluate``: exact top-k of the full catalogue, raycl beside plain ``torch.topk`` by blocks."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import measure, results
from benchmarks.evaluate.job import Size
from benchmarks.measure import Run
from benchmarks.results import Row

ROOT = Path(__file__).resolve().parents[2]
CONTENDERS = {"raycl": ("with_raycl",), "kernel": ("with_raycl", "kernel"), "torch": ("with_torch",)}
SPEED_GOAL = 1.0
"""At the full size; what is measured on the way to it is to show how time grows."""
MEMORY_GOAL = 0.8
"""Four times the users may take a quarter more memory, of which their vectors are a part."""

Found = dict[tuple[str, Size], Run]


@dataclass(frozen=True)
class Sizes:
    """Three sizes of each; the full one has the most users and items, and the middle k."""

    users: list[int]
    items: list[int]
    ks: list[int]
    dim: int

    @property
    def full(self) -> Size:
        """What the goal is about."""
        return Size(self.users[-1], self.items[-1], self.dim, self.ks[len(self.ks) // 2])

    def all(self) -> list[Size]:
        """Each of users, items and k in turn, with the full size of the others, the cheapest first."""
        full = self.full
        found = {replace(full, users=users) for users in self.users}
        found |= {replace(full, items=items) for items in self.items}
        found |= {replace(full, k=k) for k in self.ks}
        return sorted(found, key=lambda size: (size.users * size.items, size.k))


def main() -> None:
    """Measure every size, each contender once a round, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--items", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--ks", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1, help="runs of each contender; the best counts")
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1), help="cores of every contender")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--results", type=Path, default=results.FOLDER)
    parser.add_argument("--keep", action="store_true", help="keep the rows of sizes that are not measured now")
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: chosen.cores]
    sizes = Sizes(sorted(chosen.users), sorted(chosen.items), sorted(chosen.ks), chosen.dim)
    found: Found = {}
    for size in sizes.all():
        for name in [name for _ in range(chosen.rounds) for name in chosen.contenders]:
            run = _measure(name, size, cores)
            if (name, size) not in found or run.said["seconds"] < found[name, size].said["seconds"]:
                found[name, size] = run
            results.say(f"{_name(size)} {name}: {run.said['seconds']:.1f} s, {run.peak_bytes / 1e9:.2f} GB")
    notes = (
        f"The job is that of `benchmarks/evaluate/job.py`. Every contender has the same {len(cores)} cores; the best of"
        f" {chosen.rounds}\nround(s). `raycl` is tasks on Ray, `kernel` the same code in one process. Seconds leave out"
        f" the engine's start\nand the making of the vectors; peak memory (proportional set size of all processes) does"
        f" not, and holds the\nvectors, and for raycl Ray itself.\n\n{_table(found)}"
    )
    results.write(
        "evaluate", "Exact top-k of the full catalogue", rows(found, sizes), notes, chosen.results, keep=chosen.keep
    )


def rows(found: Found, sizes: Sizes) -> list[Row]:
    """The claims that these runs make."""
    made = []
    for size in sizes.all():
        for name in ("raycl", "kernel"):
            if (name, size) in found and ("torch", size) in found:
                made.append(_beside(found[name, size], found["torch", size], name, size, full=size == sizes.full))
    return [*made, *_growth(found, sizes)]


def _beside(ours: Run, peer: Run, name: str, size: Size, *, full: bool) -> Row:
    rate, other = (size.users / run.said["seconds"] for run in (ours, peer))
    goal = SPEED_GOAL if full else None
    equal = ours.said["checksum"] == peer.said["checksum"]
    return Row(f"{name} beside torch.topk", _name(size), rate, other, "users/s", rate / other, goal, equal)


def _growth(found: Found, sizes: Sizes) -> list[Row]:
    """raycl at the full size beside raycl at the smallest of each; less is better."""
    full, made = found.get(("raycl", sizes.full)), []
    smaller = {
        "users": replace(sizes.full, users=sizes.users[0]),
        "items": replace(sizes.full, items=sizes.items[0]),
        "k": replace(sizes.full, k=sizes.ks[0]),
    }
    for what, size in smaller.items():
        small = found.get(("raycl", size))
        if full is None or small is None or size == sizes.full:
            continue
        equal = all(_agrees(found, one) for one in (size, sizes.full))
        costs = [
            run.said["seconds"] / (one.users * one.items) * 1e9 for run, one in ((full, sizes.full), (small, size))
        ]
        case = f"time beside raycl at fewer {what}" if what != "k" else "time beside raycl at a smaller k"
        made.append(Row(case, _name(sizes.full), costs[0], costs[1], "ns/score", costs[1] / costs[0], None, equal))
        if what == "users":
            peaks = [run.peak_bytes / 1e9 for run in (full, small)]
            case = f"peak memory beside raycl at {size.users:,} users"
            ratio = peaks[1] / peaks[0]
            made.append(Row(case, _name(sizes.full), peaks[0], peaks[1], "GB", ratio, MEMORY_GOAL, equal))
    return made


def _agrees(found: Found, size: Size) -> bool:
    peer = found.get(("torch", size))
    return peer is not None and found["raycl", size].said["checksum"] == peer.said["checksum"]


def _measure(name: str, size: Size, cores: list[int]) -> Run:
    module, *words = CONTENDERS[name]
    numbers = map(str, (size.users, size.items, size.dim, size.k, len(cores)))
    command = [sys.executable, "-m", f"benchmarks.evaluate.{module}", *numbers, *words]
    threads = {} if name == "raycl" else {"OMP_NUM_THREADS": str(len(cores))}  # each of its tasks has a core
    return measure.run(command, cores, {"PYTHONPATH": str(ROOT), **threads})


def _table(found: Found) -> str:
    lines = ["| contender | size | seconds | users/s | CPU seconds | peak GB |", "|---|---|---|---|---|---|"]
    for (name, size), run in found.items():
        seconds = run.said["seconds"]
        lines.append(
            f"| {name} | {_name(size)} | {seconds:.1f} | {size.users / seconds:,.0f} | {run.cpu_s:.1f} |"
            f" {run.peak_bytes / 1e9:.2f} |"
        )
    return "\n".join(lines)


def _name(size: Size) -> str:
    return f"{size.users:,} x {size.items:,} x {size.dim}, k {size.k}"


if __name__ == "__main__":
    main()
