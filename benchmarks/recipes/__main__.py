"""``make bench-recipes``: each recipe from logs to a release, its figures beside others, and the README's table.

What is finished in the workspace is found there. With ``--part val`` settings are tried on the validation part, and no
table is written.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.recipes import tables
from benchmarks.recipes.cases import ABLATED, ABLATED_ON, ABLATIONS, CASES
from benchmarks.recipes.tables import Measured
from raycl.journey import Outcome

ROOT = Path(__file__).resolve().parents[2]
TRIED = Path(__file__).resolve().with_name("tried.md")
LEAN = ("evaluation.auc=false", "evaluation.perturbed_share=0.0")
ON_VALIDATION = ("evaluation.part=val",)
ALONE = ("evaluation.baselines.names=[]",)


def main() -> None:
    """Measure the chosen recipes, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__)
    parser.add_argument("--recipes", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--no-variants", action="store_true")
    parser.add_argument("--ablations", action="store_true", help=f"settings of {ABLATED}, on its validation part")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--part", default="test", choices=["val", "test"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--workspace", type=Path, default=ROOT / "benchmarks" / "scratch" / "recipes")
    parser.add_argument("--results", type=Path, default=results.FOLDER)
    chosen = parser.parse_args()
    if chosen.overrides and chosen.part == "test":
        parser.error("--set is for choosing settings, which is done with --part val: put what won into the recipe")
    os.environ["RAYCL_DATA"], os.environ["RAYCL_WORKSPACE"] = str(chosen.data), str(chosen.workspace)
    from raycl import environment

    environment.prepare()
    cases = [CASES[name] for name in chosen.recipes]
    if chosen.part == "val":
        for case in cases:
            found = measure(case.name, case.metrics, [*ON_VALIDATION, *ALONE, *chosen.overrides])
            results.say(tables.section(case, found, {}))
        return
    rows: list[results.Row] = []
    told: list[str] = []
    lines: dict[str, str] = {}
    for case in cases:
        found = measure(case.name, case.metrics, (), release=True)
        variants = (
            {}
            if chosen.no_variants
            else {name: measure(case.name, case.metrics, [*ALONE, *changed]) for name, changed in case.variants.items()}
        )
        rows += tables.rows(case, found)
        told.append(tables.section(case, found, variants))
        lines[case.name] = tables.line(case, found)
        results.say(told[-1])
    if chosen.ablations:
        told.append(_ablated())
    results.write("recipes", "Recipes on real data", rows, _notes(told), chosen.results)
    page = ROOT / "README.md"
    page.write_text(tables.readme(page.read_text(encoding="utf-8"), list(CASES.values()), lines), encoding="utf-8")


def measure(name: str, metrics: Sequence[str], changed: Sequence[str], *, release: bool = False) -> Measured:
    """The recipe with these settings changed, through the real journey; with ``release`` to the published release."""
    from raycl import config_file, journey

    config = config_file.load(ROOT / "jobs" / "recipes" / f"{name}.yaml", [*LEAN, *changed])
    results.say(f"\n{name} {' '.join(changed)}")
    if release:
        done = journey.run(config, _tell, lambda _: None)
    else:
        done = [journey.pairs(config), journey.train(config, _tell), journey.evaluate(config)]
    made, evaluated = done[0].version.manifest, done[2].version.manifest
    wall_s = _seconds(Path(config.workspace) / "seconds.json", done)
    size = f"{evaluated.counts['users']:,} users, {made.counts['items']:,} items"
    found = Measured(_models(evaluated.facts, metrics), size, _protocol(evaluated.facts), wall_s)
    results.say(f"{size}; {wall_s:,.0f} s; {found.models['towers']}")
    return found


def _seconds(kept: Path, done: Sequence[Outcome]) -> float:
    """How long all stages took together; of those that were found finished, when they were made."""
    known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    known |= {one.version.name: one.wall_s for one in done if one.worked and one.stage != "publish"}
    kept.write_text(json.dumps(known), encoding="utf-8")
    return sum(known.get(one.version.name, 0.0) for one in done if one.stage != "publish")


def _models(facts: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, dict[str, tables.Interval]]:
    found: dict[str, dict[str, tables.Interval]] = {}
    for model in facts["models"]:
        ends = facts["intervals"][model]
        found[model] = {
            metric: (facts[model][metric], *ends.get(metric, (facts[model][metric],) * 2))
            for metric in metrics
            if metric in facts[model]
        }
    return found


def _ablated() -> str:
    case = CASES[ABLATED]
    on = [*ABLATED_ON, *ALONE]
    found = {
        what: {name: measure(case.name, case.metrics, [*on, *changed]) for name, changed in settings.items()}
        for what, settings in ABLATIONS.items()
    }
    table = tables.ablations(case.metrics, found)
    results.say(table)
    where = f"The recipe {case.name}, measured on each user's last film but one."
    return f"## What single settings are worth\n\n{where}\n\n{table}"


def _tell(event: Mapping[str, Any]) -> None:
    if event["done"]:
        results.say(
            f"epoch {event['epoch'] + 1}: loss {event['loss']:.4f}, {event['pairs_per_s']:,.0f} pairs/s"
            f" {event['validation'] or ''}"
        )


def _protocol(facts: Mapping[str, Any]) -> str:
    found = facts["protocol"]
    return f"{found['name']}: {found['part']} part, {found['candidates']}, {found['masks']}"


def _notes(told: list[str]) -> str:
    parts = [
        "The recipes are those of `jobs/recipes/`, seeds included; the data is public, for research use, and not in the"
        "\nrepository. Settings were chosen on validation parts. All models of a recipe's own run rank the full"
        "\ncatalogue for the same users in one evaluation (`equal`); figures as reported by others are of the same data"
        "\nand split, and were not measured here. Intervals are of 95 %, by bootstrap of the users.",
        *told,
    ]
    if TRIED.exists():
        parts.append(TRIED.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
