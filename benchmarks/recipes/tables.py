"""From what was measured to rows of the results, and to tables in the results and in the README."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.recipes.cases import Case
from benchmarks.results import Row

LIMIT_S = 1_200.0
"""A recipe may take so long on two cores, from logs to a published release."""

Interval = tuple[float, float, float]
"""A mean, and the ends of its 95 % interval."""

MARKS = ("<!-- recipes:start -->", "<!-- recipes:end -->")
_TOWERS = "towers"


@dataclass(frozen=True)
class Measured:
    """One recipe, or a variant of it, on one part of its data."""

    models: Mapping[str, Mapping[str, Interval]]
    """By model, the towers among them, and metric."""
    size: str
    protocol: str
    wall_s: float
    """Of all stages that were run."""


def rows(case: Case, found: Measured) -> list[Row]:
    """The claims of a recipe: beside the baselines of its own run, which ranked the same users by the same protocol,
    beside what others report, which nobody compared here, and within the time.
    """
    made = []
    for metric in case.metrics:
        ours = found.models[_TOWERS][metric][0]
        for model, figures in found.models.items():
            if not model.startswith(_TOWERS) and metric in figures:
                made.append(_row(f"{case.name} beside {model}", found.size, ours, figures[metric][0], metric, True))
        for peer in case.peers:
            if metric in peer.figures:
                made.append(
                    _row(f"{case.name} beside {peer.name}", found.size, ours, peer.figures[metric], metric, False)
                )
    time = Row(
        f"{case.name}, from logs to a release",
        found.size,
        found.wall_s,
        LIMIT_S,
        "s, at most",
        LIMIT_S / max(found.wall_s, 1e-9),
        1.0,
        equal=True,
    )
    return [*made, time]


def _row(case: str, size: str, ours: float, peer: float, metric: str, equal: bool) -> Row:
    higher, lower = (peer, ours) if metric == "rmse" else (ours, peer)
    ratio = higher / lower if lower else float("inf")
    return Row(case, size, ours, peer, metric, ratio, None, equal=equal)


def section(case: Case, found: Measured, variants: Mapping[str, Measured]) -> str:
    """All models of a recipe, its variants, and figures of others, as Markdown."""
    lines = [
        f"## {case.name}",
        "",
        f"{case.data}; {case.objective}. {found.size}; {found.wall_s:,.0f} s from logs to a release.",
        "",
        f"| | {' | '.join(case.metrics)} |",
        "|---" * (len(case.metrics) + 1) + "|",
    ]
    for model, figures in found.models.items():
        name = "**the recipe**" if model == _TOWERS else model
        lines.append(f"| {name} | {' | '.join(_cell(figures.get(metric)) for metric in case.metrics)} |")
    for name, one in variants.items():
        lines.append(f"| {name} | {' | '.join(_cell(one.models[_TOWERS].get(metric)) for metric in case.metrics)} |")
    for peer in case.peers:
        cells = (f"{peer.figures[metric]:.4f}" if metric in peer.figures else "" for metric in case.metrics)
        lines.append(f"| {peer.name}, as reported | {' | '.join(cells)} |")
    if variants and case.unlike:
        lines += ["", f"Of the variants: {case.unlike}."]
    return "\n".join([*lines, "", f"Protocol {found.protocol}."])


def ablations(metrics: Sequence[str], found: Mapping[str, Mapping[str, Measured]]) -> str:
    """One table: by what was changed, each setting with its interval."""
    lines = [f"| changed | setting | {' | '.join(metrics)} |", "|---" * (len(metrics) + 2) + "|"]
    for changed, settings in found.items():
        for setting, one in settings.items():
            cells = " | ".join(_cell(one.models[_TOWERS][metric]) for metric in metrics)
            lines.append(f"| {changed} | {setting} | {cells} |")
    return "\n".join(lines)


def line(case: Case, found: Measured) -> str:
    """The row of the README's table."""
    figures = "; ".join(f"{metric} {_cell(found.models[_TOWERS][metric])}" for metric in case.metrics)
    return _line(case, figures)


def _line(case: Case, figures: str) -> str:
    command = f"`raycl run jobs/recipes/{case.name}.yaml`"
    return f"| {case.name} | {case.data} | {case.objective} | {figures} | {command} |"


def readme(text: str, cases: Sequence[Case], lines: Mapping[str, str]) -> str:
    """The README with its table written anew: ``lines`` by recipe, and for any other the line that it has."""
    start, end = MARKS
    found = re.search(f"{start}\n(.*?)\n{end}", text, re.DOTALL)
    if found is None:
        raise ValueError(f"README.md has no table between {start} and {end}")
    before = {one.split("|")[1].strip(): one for one in found[1].splitlines() if one.startswith("| ")}
    made = ["| recipe | data | objective | figures, with 95 % intervals | command |", "|---|---|---|---|---|"]
    for case in cases:
        made.append(lines.get(case.name) or before.get(case.name) or _line(case, "not measured yet"))
    return text.replace(found[0], "\n".join([start, *made, end]))


def _cell(one: Interval | None) -> str:
    if one is None:
        return ""
    mean, low, high = one
    return f"{mean:.4f}" if low == high else f"{mean:.4f} ({low:.4f} to {high:.4f})"
