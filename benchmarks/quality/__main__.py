"""``make bench-quality``: the recipes from logs to figures, beside their goals and the baselines of the same run.

Settings are chosen with ``--part val``, which holds a part of the training rows out and writes no table; without it
the recipes are trained as they stand and measured on the test part, once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.quality import goals
from benchmarks.quality.goals import CASES, Case
from benchmarks.results import Row

ROOT = Path(__file__).resolve().parents[2]
TRIED = Path(__file__).resolve().with_name("tried.md")
LEAN = ("evaluation.auc=false", "evaluation.perturbed_share=0.0")
"""No goal is about these, and they cost more than all the rest of an evaluation."""
ON_VALIDATION = ("evaluation.part=val", "pairs.split.hold_out_val=true")


def main() -> None:
    """Run each recipe, what is finished in the workspace being found there, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--part", default="test", choices=["val", "test"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--workspace", type=Path, default=ROOT / "benchmarks" / "scratch" / "quality")
    parser.add_argument("--results", type=Path, default=results.FOLDER)
    chosen = parser.parse_args()
    if chosen.overrides and chosen.part == "test":
        parser.error("--set is for choosing settings, which is done with --part val: put what won into the recipe")
    os.environ["RAYCL_DATA"], os.environ["RAYCL_WORKSPACE"] = str(chosen.data), str(chosen.workspace)
    overrides = [*ON_VALIDATION, *chosen.overrides] if chosen.part == "val" else []
    rows: list[Row] = []
    told: list[str] = []
    for case in (CASES[name] for name in chosen.recipes):
        facts, size, seconds = _measure(case, overrides)
        rows += goals.rows(case, {model: facts[model] for model in facts["models"]}, size)
        told.append(f"{goals.table(case, facts)}\n\nTrained in {seconds:,.0f} s of steps; protocol {_protocol(facts)}.")
        results.say(told[-1])
    if chosen.part == "test":
        results.write("quality", "Retrieval quality", rows, _notes(told), chosen.results)


def _measure(case: Case, overrides: list[str]) -> tuple[Mapping[str, Any], str, float]:
    """The facts of the recipe's evaluation, how large the data is, and the seconds that training steps took."""
    from raycl import config_file, environment, journey

    environment.prepare()
    config = config_file.load(ROOT / "jobs" / "recipes" / f"{case.name}.yaml", [*LEAN, *overrides])
    made = journey.pairs(config).version.manifest
    trained = journey.train(config, _tell).version.manifest
    evaluated = journey.evaluate(config).version.manifest
    seconds = trained.counts["pairs"] * sum(1 / rate for rate in trained.facts["pairs_per_s"] if rate)
    size = f"{evaluated.counts['users']:,} users, {made.counts['items']:,} items"
    return evaluated.facts, size, seconds


def _tell(event: Mapping[str, Any]) -> None:
    """An epoch's end, with its validation."""
    if event["done"]:
        found = event["validation"]
        measured = f", {found}" if found else ""
        results.say(
            f"epoch {event['epoch'] + 1}: loss {event['loss']:.4f}, {event['pairs_per_s']:,.0f} pairs/s{measured}"
        )


def _protocol(facts: Mapping[str, Any]) -> str:
    found = facts["protocol"]
    return f"{found['name']}: {found['part']} part, {found['candidates']}, {found['masks']}"


def _notes(told: list[str]) -> str:
    parts = [
        "The recipes are those of `jobs/recipes/`, seeds included; the data is public, for research use, and not in the"
        "\nrepository. Settings were chosen on a validation part. All models of a data set rank the full catalogue for"
        "\nthe same users in one evaluation; intervals are of 95 %, by bootstrap of the users.",
        *told,
    ]
    if TRIED.exists():
        parts.append(TRIED.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
