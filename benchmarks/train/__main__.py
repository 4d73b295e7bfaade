"""``make bench-train``: raycl beside a bare PyTorch loop, and how a step grows with the table, batch and negatives."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.results import Row
from benchmarks.train.case import Case

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "items": [Case(items=10_000), Case(), Case(items=1_000_000)],
    "batch": [Case(batch=512), Case(), Case(batch=8_192)],
    "negatives": [Case(), Case(uniform=2_048), Case(uniform=8_192)],
    "two workers": [Case(batch=2_048, workers=2), Case(batch=8_192, workers=2), Case(batch=16_384, workers=2)],
}
TABLE_ROWS = (100_000, 1_000_000, 10_000_000)
ONE_WORKER_GOAL, TWO_WORKERS_GOAL = 0.95, 0.9
TABLE_GOAL = round(1 / 1.3, 4)
"""A step with the largest table may take 1.3 times that with the smallest."""
SAME_LOSS = {"SparseAdam": 1e-3, "AdamW": 0.05}
"""How far an epoch's mean loss may be from raycl's, as a share of it: AdamW moves rows that a step did not read."""

Said = dict[str, Any]


def main() -> None:
    """Measure each case once a round, its contenders in turn, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--log-rows", type=int, default=800_000, help="rows of the log")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each contender; the best counts")
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1), help="cores of every contender")
    parser.add_argument("--cases", nargs="+", default=[*CASES, "tables"], choices=[*CASES, "tables"])
    parser.add_argument("--keep", action="store_true", help="keep the rows of cases that are not measured now")
    parser.add_argument("--table-rows", type=int, nargs="+", default=list(TABLE_ROWS))
    parser.add_argument("--scratch", type=Path, default=ROOT / "benchmarks" / "scratch" / "train")
    parser.add_argument("--results", type=Path, default=results.FOLDER)
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: chosen.cores]
    rows: list[Row] = []
    known: dict[Case, list[Row]] = {}
    for name in (name for name in chosen.cases if name in CASES):
        for case in CASES[name]:
            if case not in known:
                known[case] = _beside(case, chosen.scratch, chosen.log_rows, chosen.rounds, cores)
            rows += [row for row in known[case] if row not in rows]
    if "tables" in chosen.cases:
        rows += _tables(chosen.table_rows, chosen.rounds, cores)
    notes = (
        f"Pairs/s of the better epoch of two, the best of {_rounds(chosen.rounds)} in which the contenders take turns\n"
        f"on the same {len(cores)} cores. The bare loop is `benchmarks/train/bare.py`: the same towers, loss, batches\n"
        "and start, its tensors made before the clock starts; raycl's time has reading the pairs and checkpoints in\n"
        "it. `SparseAdam` does what raycl does, so the losses of both epochs must agree to a thousandth; dense\n"
        "`AdamW` moves rows that a step does not read, so there they agree to a twentieth. Two workers have a core\n"
        "each, the bare loop both. A step by the rows of its two tables has row-wise Adagrad, so that the largest\n"
        "fits the memory."
    )
    results.write("train", "Training", rows, notes, chosen.results, keep=chosen.keep)


def _rounds(count: int) -> str:
    return f"{count} round{'s' * (count > 1)}"


def _beside(case: Case, scratch: Path, log_rows: int, rounds: int, cores: Sequence[int]) -> list[Row]:
    log = _log(scratch, log_rows, case.items)
    contenders = {"raycl": ("with_raycl",), "SparseAdam": ("with_bare", "sparse"), "AdamW": ("with_bare", "dense")}
    best: dict[str, Said] = {}
    for _, (name, (module, *words)) in itertools.product(range(rounds), contenders.items()):
        place = [case.to_json(), str(log), str(scratch / f"workspace-{case.items}"), str(len(cores))]
        said = _run([f"benchmarks.train.{module}", *place, *words], cores)
        if name not in best or max(said["pairs_per_s"]) > max(best[name]["pairs_per_s"]):
            best[name] = said
        results.say(f"{case} {name}: {max(said['pairs_per_s']):,.0f} pairs/s, losses {said['losses']}")
    ours = best.pop("raycl")
    fastest = max(best, key=lambda name: max(best[name]["pairs_per_s"]))
    goal = ONE_WORKER_GOAL if case.workers == 1 else TWO_WORKERS_GOAL
    rows = []
    for name, said in best.items():
        rate, peer = max(ours["pairs_per_s"]), max(said["pairs_per_s"])
        pairs = zip(ours["losses"], said["losses"], strict=True)
        equal = all(math.isclose(one, other, rel_tol=SAME_LOSS[name]) for one, other in pairs)
        title = f"{case.workers} worker{'s' * (case.workers > 1)} beside bare loop, {name}"
        size = f"{case.items:,} items, batch {case.batch:,}" + f", {case.uniform:,} drawn" * bool(case.uniform)
        rows.append(Row(title, size, rate, peer, "pairs/s", rate / peer, goal if name == fastest else None, equal))
    return rows


def _tables(sizes: Sequence[int], rounds: int, cores: Sequence[int]) -> list[Row]:
    """A step of each size beside that of the smallest; less is better."""
    best: dict[int, float] = {}
    equal: dict[int, bool] = {}
    for _, rows in itertools.product(range(rounds), sizes):
        said = _run(["benchmarks.train.tables", str(rows), str(len(cores))], cores)
        best[rows] = min(best.get(rows, math.inf), said["ms"])
        equal[rows] = said["equal"]
        results.say(f"{rows:,} rows: {said['ms']:.1f} ms a step, {said['rows_read']:,.0f} rows read")
    first, largest = best[sizes[0]], max(sizes)
    return [
        Row(
            f"step beside tables of {sizes[0]:,} rows",
            f"{rows:,} rows",
            best[rows],
            first,
            "ms",
            first / best[rows],
            TABLE_GOAL if rows == largest else None,
            equal[rows],
        )
        for rows in sizes[1:]
    ]


def _log(scratch: Path, rows: int, items: int) -> Path:
    folder = scratch / f"log-{rows}-{items}"
    if not folder.exists():
        making = folder.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        command = [sys.executable, "-m", "raycl", "synth", str(making), "--rows", str(rows), "--items", str(items)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        making.rename(folder)
    return folder


def _run(words: Sequence[str], cores: Sequence[int]) -> Said:
    """What a contender says on its last line; nothing watches it, since that would take of its cores."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(len(cores))},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    said: Said = json.loads(done.stdout.splitlines()[-1])
    return said


if __name__ == "__main__":
    main()
