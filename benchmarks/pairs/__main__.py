"""``make bench-pairs``: raycl beside Polars, DuckDB and PySpark, and beside its own kernel without Ray."""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure, results
from benchmarks.measure import Run
from benchmarks.pairs import job
from benchmarks.results import Row

ROOT = Path(__file__).resolve().parents[2]
CONTENDERS = {
    "raycl": ("with_raycl",),
    "kernel": ("with_raycl", "kernel"),
    "polars": ("with_polars",),
    "duckdb": ("with_duckdb",),
    "pyspark": ("with_spark",),
}
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "33554432"}
"""As raycl sets it for Ray's workers: here for every contender."""
FASTEST_GOALS = {20: 1.2, 50: 1.5}
"""Against the faster of Polars and DuckDB, by millions of rows."""
KERNEL_GOAL, SPARK_GOAL = {50: 0.7}, 6.0
MEMORY_GOAL = round(1 / 1.5, 4)
"""The largest size may take half as much again as the smallest."""


@dataclass(frozen=True)
class Measured:
    """The best of a contender's runs at one size, and what its output came to."""

    best: Run
    checksum: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Wall seconds without the engine's start."""
        return float(self.best.said["seconds"])


def main() -> None:
    """Measure at each size in turn, every contender once a round, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=__doc__)
    parser.add_argument("--millions", type=int, nargs="+", default=[5, 20, 50], help="rows of the log, in millions")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each contender; the best counts")
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1), help="cores of every contender")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--scratch", type=Path, default=ROOT / "benchmarks" / "scratch" / "pairs")
    parser.add_argument("--results", type=Path, default=results.FOLDER)
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: chosen.cores]
    found: dict[tuple[str, int], Measured] = {}
    for millions in chosen.millions:
        log = _log(chosen.scratch, millions)
        for _, name in itertools.product(range(chosen.rounds), chosen.contenders):
            measured = _measure(name, log, chosen.scratch / "output", cores)
            known = found.get((name, millions))
            if known is None or measured.seconds < known.seconds:
                found[name, millions] = measured
            results.say(f"{millions}M {name}: {measured.seconds:.1f} s, {measured.best.peak_bytes / 1e9:.2f} GB")
    notes = (
        f"The job is that of `benchmarks/pairs/job.py`. Every contender has the same {len(cores)} cores; the best\n"
        f"of {chosen.rounds} rounds, in which they take turns. Seconds leave out the engine's start; CPU seconds and\n"
        f"peak memory (proportional set size of all processes) do not.\n\n{_table(found)}"
    )
    results.write("pairs", "Logs to pairs", _rows(found, chosen.millions), notes, chosen.results)


def _log(scratch: Path, millions: int) -> Path:
    folder = scratch / f"log-{millions}M"
    command = [sys.executable, "-m", "raycl", "synth", str(folder), "--rows", str(millions * 1_000_000)]
    subprocess.run([*command, "--items", "100000"], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return folder


def _measure(name: str, log: Path, output: Path, cores: list[int]) -> Measured:
    shutil.rmtree(output, ignore_errors=True)
    module, *words = CONTENDERS[name]
    command = [sys.executable, "-m", f"benchmarks.pairs.{module}", str(log), str(output), str(len(cores)), *words]
    run = measure.run(command, cores, {**ALLOCATOR, "PYTHONPATH": str(ROOT)})
    return Measured(run, job.checksum(output))


def _rows(found: dict[tuple[str, int], Measured], sizes: list[int]) -> list[Row]:
    rows = []
    for millions in sizes:
        ours = found.get(("raycl", millions))
        if ours is None:
            continue
        peers = {name: one for (name, size), one in found.items() if size == millions and name != "raycl"}
        engines = {name: peers[name] for name in ("polars", "duckdb") if name in peers}
        cases = [("pyspark", SPARK_GOAL), ("kernel", KERNEL_GOAL.get(millions))]
        if engines:
            fastest = min(engines, key=lambda name: engines[name].seconds)
            cases += [(name, FASTEST_GOALS.get(millions) if name == fastest else None) for name in engines]
        for name, goal in cases:
            if name in peers:
                rate, peer = (millions * 1e6 / one.seconds for one in (ours, peers[name]))
                equal = ours.checksum == peers[name].checksum
                rows.append(Row(f"beside {name}", f"{millions}M", rate, peer, "rows/s", rate / peer, goal, equal))
    return [*rows, *_growth(found, sizes)]


def _growth(found: dict[tuple[str, int], Measured], sizes: list[int]) -> list[Row]:
    """raycl at the largest size beside raycl at the smallest: memory and time a row, less is better."""
    first, last = found.get(("raycl", sizes[0])), found.get(("raycl", sizes[-1]))
    if first is None or last is None or len(sizes) == 1:
        return []
    size, against = f"{sizes[-1]}M", f"raycl at {sizes[0]}M"
    equal = all(one.checksum == peer.checksum for size in (sizes[0], sizes[-1]) for one, peer in _beside(found, size))
    peaks = [one.best.peak_bytes / 1e9 for one in (last, first)]
    costs = [one.seconds / millions for one, millions in ((last, sizes[-1]), (first, sizes[0]))]
    return [
        Row(f"peak memory beside {against}", size, peaks[0], peaks[1], "GB", peaks[1] / peaks[0], MEMORY_GOAL, equal),
        Row(f"time beside {against}", size, costs[0], costs[1], "us/row", costs[1] / costs[0], 1.0, equal),
    ]


def _beside(found: dict[tuple[str, int], Measured], millions: int) -> list[tuple[Measured, Measured]]:
    """raycl and each of the others at one size."""
    ours = found["raycl", millions]
    return [(ours, one) for (name, size), one in found.items() if size == millions and name != "raycl"]


def _table(found: dict[tuple[str, int], Measured]) -> str:
    lines = ["| contender | rows | seconds | rows/s | CPU seconds | peak GB |", "|---|---|---|---|---|---|"]
    for (name, millions), one in sorted(found.items(), key=lambda entry: (entry[0][1], entry[1].seconds)):
        lines.append(
            f"| {name} | {millions}M | {one.seconds:.1f} | {millions * 1e6 / one.seconds:,.0f} | {one.best.cpu_s:.1f} |"
            f" {one.best.peak_bytes / 1e9:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
