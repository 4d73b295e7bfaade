"""``make bench-index``: raycl's shards beside one FAISS process with the same factory, and beside autofaiss."""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
from pathlib import Path

from benchmarks import measure, results
from benchmarks.index import job
from benchmarks.measure import Run
from benchmarks.results import Row

ROOT = Path(__file__).resolve().parents[2]
BUILD_GOAL = round(1 / 1.15, 4)
"""Of the seconds that FAISS takes on one thread, divided by the tasks."""
RECALL_GOAL = 0.995
"""At as many queries a second; half a hundredth is what two runs differ by."""
_ALIKE = 0.01
NOTES = """The job is that of `benchmarks/index/job.py`. raycl runs {tasks} tasks of one thread at once; FAISS is one
process of one thread, and its seconds are divided by the tasks. Both have the same factory and learn from the same
sample, raycl in fewer rounds of k-means; they are equal where raycl finds no hundredth less at any depth. autofaiss has
{tasks} threads and chooses its own index. Searches are on one thread. Seconds leave out Ray's start and `spread`, which
in a nightly run is part of embedding; the peak memory in the table below is that of all
processes, Ray's own among them, and that of a task is by how much it raises the memory of its worker."""

Found = dict[tuple[str, str, int], Run]


def main() -> None:
    """Measure at each size and kind in turn, every contender once a round, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 5_000_000])
    parser.add_argument("--kinds", nargs="+", default=["ivf_flat", "ivf_pq"])
    parser.add_argument("--rounds", type=int, default=1, help="runs of each contender; the fastest counts")
    parser.add_argument("--tasks", type=int, default=min(2, os.cpu_count() or 1), help="raycl's tasks, a core each")
    parser.add_argument("--autofaiss", type=Path, help="a Python that has autofaiss; without one it is left out")
    parser.add_argument("--scratch", type=Path, default=ROOT / "benchmarks" / "scratch" / "index")
    parser.add_argument("--results", type=Path, default=results.FOLDER)
    parser.add_argument("--keep", action="store_true", help="keep the rows of sizes that are not measured now")
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: chosen.tasks]
    found: Found = {}
    for rows in chosen.rows:
        folder = chosen.scratch / f"vectors-{rows}"
        job.prepare(folder, rows)
        runs = [(name, kind) for kind in chosen.kinds for name in ("raycl", "faiss")]
        runs += [("autofaiss", "ivf_flat")] if chosen.autofaiss else []
        for _, (name, kind) in itertools.product(range(chosen.rounds), runs):
            run = _measure(name, kind, folder, chosen.scratch / "output", cores, chosen.autofaiss)
            known = found.get((name, kind, rows))
            if known is None or run.said["seconds"] < known.said["seconds"]:
                found[name, kind, rows] = run
            results.say(f"{rows:,} {kind} {name}: {run.said['seconds']:.1f} s, {run.peak_bytes / 1e9:.2f} GB")
    notes = f"{NOTES.format(tasks=chosen.tasks)}\n\n{_table(found)}"
    results.write("index", "Building the index", _rows(found, chosen.tasks), notes, chosen.results, keep=chosen.keep)


def _measure(name: str, kind: str, folder: Path, output: Path, cores: list[int], autofaiss: Path | None) -> Run:
    shutil.rmtree(output, ignore_errors=True)
    python = str(autofaiss) if name == "autofaiss" and autofaiss else sys.executable
    if name == "faiss":
        cores = cores[:1]  # on more, its matrix products would have more than its one thread
    command = [python, "-m", f"benchmarks.index.with_{name}", str(folder), kind, str(output), str(len(cores))]
    return measure.run(command, cores, {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"})


def _rows(found: Found, tasks: int) -> list[Row]:
    rows = []
    for (name, kind, size), ours in found.items():
        if name != "raycl":
            continue
        words = f"{size / 1e6:g}M"
        if raw := found.get(("faiss", kind, size)):
            equal = _alike(ours, raw)
            mine, share = float(ours.said["seconds"]), float(raw.said["seconds"]) / tasks
            rows.append(Row(f"build {kind} beside faiss", words, mine, share, "s", share / mine, BUILD_GOAL, equal))
            task, whole = ours.said["task_peak_bytes"] / 1e9, raw.peak_bytes / 1e9
            rows.append(
                Row(f"memory of a {kind} task beside faiss", words, task, whole, "GB", whole / task, 1.0, equal)
            )
            rows.append(_recall_row(f"recall@100 of {kind} beside faiss", words, ours, raw, equal))
        if kind == "ivf_flat" and (auto := found.get(("autofaiss", kind, size))):
            mine, peer = float(ours.said["seconds"]), float(auto.said["seconds"])
            rows.append(Row("build beside autofaiss", words, mine, peer, "s", peer / mine, 1.0, True))
            rows.append(_recall_row("recall@100 beside autofaiss", words, ours, auto, True))
    return rows


def _recall_row(case: str, size: str, ours: Run, peer: Run, equal: bool) -> Row:
    """Recall at the speed at which the peer first finds 95 of 100, or else the most."""
    points = sorted(peer.said["curve"], key=lambda point: point["recall"])
    point = next((point for point in points if point["recall"] >= 0.95), points[-1])
    mine = job.recall_at(ours.said["curve"], point["qps"])
    unit = f"recall at {point['qps']:,.0f} queries/s"
    return Row(case, size, mine, point["recall"], unit, mine / point["recall"], RECALL_GOAL, equal)


def _alike(ours: Run, raw: Run) -> bool:
    """Whether raycl finds as much at each depth, whose lists are other ones: no hundredth less."""
    pairs = zip(ours.said["curve"], raw.said["curve"], strict=True)
    return all(one["recall"] > other["recall"] - _ALIKE for one, other in pairs)


def _table(found: Found) -> str:
    lines = [
        "| contender | kind | vectors | seconds | where they go | CPU seconds | peak GB | recall@100 at queries/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, kind, size), run in sorted(found.items(), key=lambda entry: entry[0][::-1]):
        phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in run.said["phases"].items())
        curve = ", ".join(f"{point['recall']:.3f} at {point['qps']:,.0f}" for point in run.said["curve"])
        lines.append(
            f"| {name} | {kind} | {size:,} | {run.said['seconds']:.1f} | {phases} | {run.cpu_s:.1f} |"
            f" {run.peak_bytes / 1e9:.2f} | {curve} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
