"""What the benchmarks of recipes share: their arguments, what a run says, and the pages that they leave."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import results

ROOT = Path(__file__).resolve().parents[1]
LEAN = ("evaluation.auc=false", "evaluation.perturbed_share=0.0")
"""No figure is about these, and they cost more than all the rest of an evaluation."""
_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)


def parser(name: str, description: str | None, recipes: Collection[str]) -> argparse.ArgumentParser:
    """The arguments of ``python -m benchmarks.NAME`` that both have."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    made.add_argument("--recipes", nargs="*", default=list(recipes), choices=list(recipes), help="the others stay")
    made.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the data sets")
    made.add_argument("--part", default="test", choices=["val", "test"])
    made.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE")
    made.add_argument("--workspace", type=Path, default=ROOT / "benchmarks" / "scratch" / name)
    made.add_argument("--results", type=Path, default=results.FOLDER)
    return made


def parse(made: argparse.ArgumentParser, words: list[str] | None = None) -> argparse.Namespace:
    """What was asked for; the recipes find data and workspace where it says."""
    chosen = made.parse_args(words)
    if chosen.overrides and chosen.part == "test":
        made.error("--set is for choosing settings, which is done with --part val: put what won into the recipe")
    os.environ["RAYCL_DATA"], os.environ["RAYCL_WORKSPACE"] = str(chosen.data), str(chosen.workspace)
    return chosen


def tell(event: Mapping[str, Any]) -> None:
    """Say an epoch's end, with its validation."""
    if event["done"]:
        measured = f", {event['validation']}" if event["validation"] else ""
        results.say(
            f"epoch {event['epoch'] + 1}: loss {event['loss']:.4f}, {event['pairs_per_s']:,.0f} pairs/s{measured}"
        )


def protocol(facts: Mapping[str, Any]) -> str:
    """How an evaluation measured, in one line."""
    found = facts["protocol"]
    return f"{found['name']}: {found['part']} part, {found['candidates']}, {found['masks']}"


def size(pairs: Mapping[str, int], evaluation: Mapping[str, int]) -> str:
    """How large the data is, by the counts of both."""
    return f"{evaluation['users']:,} users, {pairs['items']:,} items"


def page(
    name: str,
    title: str,
    rows: list[results.Row],
    told: Mapping[str, str],
    titles: Iterable[str],
    intro: str,
    folder: Path,
) -> None:
    """Write the results of ``name``: ``told`` has the sections by title, each under a heading ``## TITLE``.

    Sections of the other ``titles``, and their rows, stay as they were measured before. At the end comes what was
    tried, as ``benchmarks/NAME/tried.md`` has it.
    """
    known = list(titles)
    path = folder / f"{name}.md"
    before = sections(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = [told.get(one) or before.get(one, "") for one in known]
    tried = ROOT / "benchmarks" / name / "tried.md"
    parts = [intro, *filter(None, found), tried.read_text(encoding="utf-8").strip() if tried.exists() else ""]
    results.write(name, title, rows, "\n\n".join(parts), folder, keep=[one for one in known if one not in told])


def sections(text: str) -> dict[str, str]:
    """The parts of a page by their headings, which they begin with."""
    found = list(_HEADING.finditer(text))
    ends = [one.start() for one in found[1:]] + [len(text)]
    return {one[1]: text[one.start() : end].strip() for one, end in zip(found, ends, strict=True)}
