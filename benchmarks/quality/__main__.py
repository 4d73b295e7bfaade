"""``make bench-quality``: the recipes from logs to figures, beside their goals and the baselines of the same run.

Settings are chosen with ``--part val``, which holds a part of the training rows out and writes no table; without it
the recipes are trained as they stand and measured on the test part, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import recipe_runs, results
from benchmarks.quality import goals
from benchmarks.quality.goals import CASES, Case
from benchmarks.recipe_runs import LEAN, ROOT
from benchmarks.results import Row

INTRO = """\
The recipes are those of `jobs/recipes/`, seeds included; the data is public, for research use, and not in the
repository. Settings were chosen on a validation part. All models of a data set rank the full catalogue for
the same users in one evaluation; intervals are of 95 %, by bootstrap of the users."""
ON_VALIDATION = ("evaluation.part=val", "pairs.split.hold_out_val=true", "pairs.split.train_on_val=false")


def main() -> None:
    """Run each recipe, what is finished in the workspace being found there, and write the tables."""
    chosen = recipe_runs.parse(recipe_runs.parser("quality", __doc__, CASES))
    overrides = [*ON_VALIDATION, *chosen.overrides] if chosen.part == "val" else []
    rows: list[Row] = []
    told: dict[str, str] = {}
    for case in (CASES[name] for name in chosen.recipes):
        facts, size, seconds = _measure(case, overrides)
        rows += goals.rows(case, {model: facts[model] for model in facts["models"]}, size)
        said = f"Trained in {seconds:,.0f} s of steps; protocol {recipe_runs.protocol(facts)}."
        told[case.title] = f"## {case.title}\n\n{goals.table(case, facts)}\n\n{said}"
        results.say(told[case.title])
    if chosen.part == "test":
        titles = [case.title for case in CASES.values()]
        recipe_runs.page("quality", "Retrieval quality", rows, told, titles, INTRO, chosen.results)


def _measure(case: Case, overrides: list[str]) -> tuple[Mapping[str, Any], str, float]:
    """The facts of the recipe's evaluation, how large the data is, and the seconds that training steps took."""
    from raycl import config_file, environment, journey

    environment.prepare()
    config = config_file.load(ROOT / "jobs" / "recipes" / f"{case.name}.yaml", [*LEAN, *overrides])
    made = journey.pairs(config).version.manifest
    trained = journey.train(config, recipe_runs.tell).version.manifest
    evaluated = journey.evaluate(config).version.manifest
    seconds = trained.counts["pairs"] * sum(1 / rate for rate in trained.facts["pairs_per_s"] if rate)
    return evaluated.facts, recipe_runs.size(made.counts, evaluated.counts), seconds


if __name__ == "__main__":
    main()
