"""What a person sees on the terminal, and what a machine reads with ``--json``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from raycl import schema
from raycl.journey import Outcome

if TYPE_CHECKING:
    from raycl.answers import Answered

_LINES = {"train": ("kept",), "index": ("plan", "reason"), "publish": ("reason",)}
"""Facts that are sentences, printed under a stage's table."""

_SAY_EVERY_S = 30.0


class Screen:
    """Tables on standard output, or JSON lines there and nothing else; progress always on standard error."""

    def __init__(self, *, as_json: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.as_json = as_json
        self._clock = clock
        self._said_s = clock()
        self._out = Console(highlight=False)
        self._err = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._bars: dict[int, TaskID] = {}

    def say(self, line: str) -> None:
        """One line for people."""
        (self._err if self.as_json else self._out).print(line, markup=False, soft_wrap=True)

    def error(self, line: str) -> None:
        """The line that says what to change."""
        self._err.print(f"raycl: {line}", style="red", markup=False, soft_wrap=True)

    def json(self, value: Mapping[str, Any]) -> None:
        """One line of JSON on standard output."""
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    def epoch(self, event: Mapping[str, Any]) -> None:
        """Draw the bar of an epoch; where there is no terminal, print a line now and then, and one at its end."""
        loss, rate = f"{event['loss']:.4f}{_recall(event['validation'])}", f"{event['pairs_per_s']:,.0f} pairs/s"
        number = int(event["epoch"])
        if not self._err.is_terminal:
            if event["done"] or self._clock() - self._said_s > _SAY_EVERY_S:
                self._said_s = self._clock()
                step = "" if event["done"] else f" step {event['step']:,} of {event['steps']:,},"
                self._err.print(f"epoch {number + 1}:{step} loss {loss}, {rate}", markup=False)
            return
        if self._progress is None:
            columns = (TextColumn("epoch {task.fields[number]}"), BarColumn(), TextColumn("{task.fields[note]}"))
            self._progress = Progress(*columns, TimeRemainingColumn(), console=self._err)
            self._progress.start()
        if number not in self._bars:
            self._bars[number] = self._progress.add_task("", total=event["steps"], number=number + 1, note="")
        self._progress.update(self._bars[number], completed=event["step"], note=f"loss {loss}, {rate}")

    def end_epochs(self) -> None:
        """Close the bars."""
        if self._progress is not None:
            self._progress.stop()
            self._progress, self._bars = None, {}

    def outcome(self, outcome: Outcome) -> None:
        """The summary that ends a stage."""
        self.end_epochs()
        if self.as_json:
            self.json(summary(outcome))
            return
        if not outcome.worked:
            self.say(
                f"{outcome.stage}: nothing to do, {outcome.version.name} is finished ({outcome.version.store.uri})"
            )
        self.say(f"\n{outcome.stage} {outcome.version.name}, {outcome.wall_s:.1f} s")
        self._out.print(_table(outcome))
        for name in _LINES.get(outcome.stage, ()):
            self.say(f"{name}: {outcome.version.manifest.facts[name]}")
        for feature, reason in outcome.version.manifest.facts.get("suspects", {}).items():
            self.say(f"{feature} may know the future: {reason}")
        for page in (schema.REPORT_PAGE, schema.RUN_PAGE):
            if page in outcome.version.manifest.checksums:
                self.say(f"report: {outcome.version.store.uri}/{page}")

    def answers(self, answered: Sequence[Answered]) -> None:
        """What some users were answered; with ``--json`` one line for all."""
        if self.as_json:
            self.json({"stage": "answers", "users": [one.to_json() for one in answered]})
            return
        for one in answered:
            plain = one.to_json()
            self.rows(f"user {one.user}, who met {'; '.join(one.met)}", plain["items"])
            if plain["similar"]:
                self.rows(f"like {one.met[0]}", plain["similar"])

    def rows(self, title: str, rows: list[dict[str, Any]]) -> None:
        """A table with a column for each key of the first row."""
        self.say(f"\n{title}")
        table = Table()
        for name in rows[0] if rows else []:
            # A cell that does not fit goes on in the next line: names are there to be copied.
            table.add_column(name, justify="right" if isinstance(rows[0][name], float) else "left", overflow="fold")
        for row in rows:
            table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
        self._out.print(table)


def summary(outcome: Outcome) -> dict[str, Any]:
    """What ``--json`` prints of a stage."""
    manifest = outcome.version.manifest
    return {
        "stage": outcome.stage,
        "version": manifest.version,
        "uri": outcome.version.store.uri,
        "worked": outcome.worked,
        "counts": manifest.counts,
        "dropped": manifest.dropped,
        "facts": {name: value for name, value in manifest.facts.items() if name != "pairs_by_file"},
        "seconds": outcome.wall_s,
    }


def _table(outcome: Outcome) -> Table:
    manifest = outcome.version.manifest
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in manifest.counts.items():
        table.add_row(name, f"{count:,}")
    for reason, count in manifest.dropped.items():
        table.add_row(f"dropped: {reason}", f"{count:,}")
    match outcome.stage:
        case "train":
            ends = {point["epoch"]: point for point in manifest.facts["validation"]}
            for epoch, loss in enumerate(manifest.facts["losses"]):
                table.add_row(f"loss, epoch {epoch + 1}", f"{loss:.4f}{_recall(ends.get(epoch))}")
        case "evaluate":
            _add_metrics(table, manifest.facts)
        case "index" | "publish":
            table.add_row("index_recall", f"{manifest.facts['index_recall']:.4f}")
    return table


def _recall(point: Mapping[str, Any] | None) -> str:
    """The words that go on after a loss; none where nothing was validated."""
    return "" if point is None else f", recall@{point['k']} {point['recall']:.4f}"


def _add_metrics(table: Table, facts: Mapping[str, Any]) -> None:
    towers, popularity, ends = facts["towers"], facts["popularity"], facts["intervals"]["towers"]
    for name, value in towers.items():
        interval = f" [{ends[name][0]:.4f}, {ends[name][1]:.4f}]" if name in ends else ""
        beside = f"   most popular {popularity[name]:.4f}" if name in popularity else ""
        table.add_row(name, f"{value:.4f}{interval}{beside}")
