"""The tables that benchmarks leave: Markdown for people and JSON for machines."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Row:
    """One claim: raycl and a peer at one size, in ``unit``; ``ratio`` is how many times better raycl is."""

    case: str
    size: str
    raycl: float
    peer: float
    unit: str
    ratio: float
    goal: float | None
    equal: bool
    """Whether the results were compared and agree."""

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches the goal; None without one."""
        return None if self.goal is None else self.equal and self.ratio >= self.goal


def write(
    name: str,
    title: str,
    rows: list[Row],
    notes: str,
    folder: Path = FOLDER,
    *,
    keep: bool | Collection[str] = False,
) -> None:
    """Write ``name.json`` and ``name.md`` into ``folder``.

    ``keep``: what was measured there before and not in this run stays, with the date and commit of its own run; or of
    these titles alone, with which the names of their cases begin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = [
        found
        for found in (_kept(folder / f"{name}.json", rows) if keep else [])
        if keep is True or found["case"].startswith(tuple(f"{of}{end}" for of in keep or () for end in (" ", ",")))
    ]
    facts = {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {_memory_gib()} GiB",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
    }
    plain = {**facts, "rows": [*(asdict(row) | {"met": row.met} for row in rows), *kept]}
    (folder / f"{name}.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"# {title}",
        "",
        f"{facts['machine']}; {facts['date']}; commit {facts['commit']}.",
        "",
        "| case | size | raycl | peer | unit | ratio | goal | equal | met |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_line, rows),
        *(_line(_row(found)) for found in kept),
        "",
        *_measured(kept),
        *([""] if kept else []),
        notes,
    ]
    (folder / f"{name}.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _kept(path: Path, rows: list[Row]) -> list[dict[str, Any]]:
    """The rows in ``path`` of other cases and sizes than ``rows``, each with its date and commit."""
    if not path.exists():
        return []
    before, measured = json.loads(path.read_text(encoding="utf-8")), {(row.case, row.size) for row in rows}
    run = {"date": before["date"], "commit": before["commit"]}
    return [run | found for found in before["rows"] if (found["case"], found["size"]) not in measured]


def _measured(kept: list[dict[str, Any]]) -> list[str]:
    """A line for each earlier run: what stays of it."""
    runs: dict[str, dict[str, None]] = {}
    for found in kept:
        of_run = runs.setdefault(f"measured {found['date']} at commit {found['commit']}", {})
        of_run[f"{found['case']}, {found['size']}"] = None
    return [f"{'; '.join(cases)}: {run}." for run, cases in runs.items()]


def _row(plain: dict[str, Any]) -> Row:
    return Row(**{field.name: plain[field.name] for field in fields(Row)})


def _line(row: Row) -> str:
    return (
        f"| {row.case} | {row.size} | {row.raycl:,.4g} | {row.peer:,.4g} | {row.unit} | {row.ratio:.2f} |"
        f" {'' if row.goal is None else f'{row.goal:g}'} | {_word(row.equal)} | {_word(row.met)} |"
    )


def say(line: str) -> None:
    """Tell whoever waits how far a benchmark is."""
    sys.stderr.write(f"{line}\n")


def _word(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _commit() -> str:
    command = ["git", "-C", str(FOLDER.parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
