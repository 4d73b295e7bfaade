"""``make bench-recipes``: each recipe from logs to a release, its figures beside others, and the README's table.

What is finished in the workspace is found there. With ``--part val`` settings are tried on the validation part, and no
table is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import recipe_runs, results
from benchmarks.recipe_runs import LEAN, ROOT
from benchmarks.recipes import tables
from benchmarks.recipes.cases import ABLATED, ABLATED_ON, ABLATIONS, CASES
from benchmarks.recipes.tables import Measured
from raycl.journey import Outcome

INTRO = """\
The recipes are those of `jobs/recipes/`, seeds included; the data is public, for research use, and not in the
repository. Settings were chosen on validation parts. All models of a recipe's own run rank the full
catalogue for the same users in one evaluation (`equal`); figures as reported by others are of the same data
and split, and were not measured here. Intervals are of 95 %, by bootstrap of the users."""
ABLATIONS_TITLE = "What single settings are worth"
ON_VALIDATION = ("evaluation.part=val",)
ALONE = ("evaluation.baselines.names=[]",)


def main() -> None:
    """Measure the chosen recipes, and write the tables."""
    parser = recipe_runs.parser("recipes", __doc__, CASES)
    parser.add_argument("--no-variants", action="store_true")
    parser.add_argument("--ablations", action="store_true", help=f"settings of {ABLATED}, on its validation part")
    chosen = recipe_runs.parse(parser)
    from raycl import environment

    environment.prepare()
    cases = [CASES[name] for name in chosen.recipes]
    if chosen.part == "val":
        for case in cases:
            found = measure(case.name, case.metrics, [*ON_VALIDATION, *ALONE, *chosen.overrides])
            results.say(tables.section(case, found, {}))
        return
    rows: list[results.Row] = []
    told: dict[str, str] = {}
    lines: dict[str, str] = {}
    for case in cases:
        found = measure(case.name, case.metrics, (), release=True)
        variants = (
            {}
            if chosen.no_variants
            else {name: measure(case.name, case.metrics, [*ALONE, *changed]) for name, changed in case.variants.items()}
        )
        rows += tables.rows(case, found)
        told[case.name] = tables.section(case, found, variants)
        lines[case.name] = tables.line(case, found)
        results.say(told[case.name])
    if chosen.ablations:
        told[ABLATIONS_TITLE] = _ablated()
    titles = [*CASES, ABLATIONS_TITLE]
    recipe_runs.page("recipes", "Recipes on real data", rows, told, titles, INTRO, chosen.results)
    page = ROOT / "README.md"
    page.write_text(tables.readme(page.read_text(encoding="utf-8"), list(CASES.values()), lines), encoding="utf-8")


def measure(name: str, metrics: Sequence[str], changed: Sequence[str], *, release: bool = False) -> Measured:
    """The recipe with these settings changed, through the real journey; with ``release`` to the published release."""
    from raycl import config_file, journey

    config = config_file.load(ROOT / "jobs" / "recipes" / f"{name}.yaml", [*LEAN, *changed])
    results.say(f"\n{name} {' '.join(changed)}")
    if release:
        done = journey.run(config, recipe_runs.tell, lambda _: None)
    else:
        done = [journey.pairs(config), journey.train(config, recipe_runs.tell), journey.evaluate(config)]
    made, evaluated = done[0].version.manifest, done[2].version.manifest
    wall_s = _seconds(Path(config.workspace) / "seconds.json", done)
    size = recipe_runs.size(made.counts, evaluated.counts)
    found = Measured(_models(evaluated.facts, metrics), size, recipe_runs.protocol(evaluated.facts), wall_s)
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
    return f"## {ABLATIONS_TITLE}\n\n{where}\n\n{table}"


if __name__ == "__main__":
    main()
