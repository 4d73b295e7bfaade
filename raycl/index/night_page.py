"""What a night changed, as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raycl.index.night import Night, Point
from raycl.index.release_diff import Change
from raycl.pages.drawing import INKS, drawing, legend
from raycl.pages.html import Cell, cards, figure, note, page, percent, section, shown, table, text


def render(night: Night) -> str:
    """The page: HTML that is well-formed XML too; the same night gives the same bytes."""
    return page(
        "Night report",
        [
            f"<header><p>raycl release {text(night.release)}</p><h1>What changed</h1></header>",
            _summary(night),
            section("Gate", _gate(night)),
            section("Metrics beside the last release", _metrics(night)),
            section("Recall against latency", _curve(night)),
            section("Shards", _shards(night)),
            section("Items in and out", _items(night)),
            section("Items whose answers changed most", _moved(night)),
            section("Config", _config(night)),
            section("Stages", _stages(night)),
            f"<footer><p>Made by raycl {text(night.raycl)}.</p></footer>",
        ],
    )


def _summary(night: Night) -> str:
    items, diff = sum(shard.items for shard in night.shards), night.diff
    chosen = [point for point in night.curve if point.chosen]
    named: list[tuple[str, str, str]] = [
        ("Gate", "passed" if night.publish else "refused", "" if night.publish else "the release before stays current"),
        ("Items", shown(items), f"{diff.num_in:,} in, {diff.num_out:,} out" if diff else "no release to compare with"),
        ("Index", f"{sum(shard.size_bytes for shard in night.shards):,} bytes", f"{len(night.shards):,} shards"),
        *(("One search", f"{point.ms:.3f} ms", f"at effort {point.effort:,}") for point in chosen),
    ]
    if diff and diff.answers:
        named.append(("Agreement", percent(diff.answers.agreement), text(f"of the answers of {diff.before}")))
    return cards(named)


def _gate(night: Night) -> str:
    rows = [
        (
            check["name"],
            f"{check['value']:,.6g}",
            f"{'at most' if check['ceiling'] else 'at least'} {check['bound']:g}",
            "kept"
            if (check["value"] <= check["bound"] if check["ceiling"] else check["value"] >= check["bound"])
            else "missed",
        )
        for check in night.checks
    ]
    return table(["", "Measured", "Bound", ""], rows) + note(night.reason)


def _metrics(night: Night) -> str:
    if night.diff is None:
        return _nothing(night)
    return table(["", "Before", "Now", "Change"], [_change(change) for change in night.diff.metrics])


def _curve(night: Night) -> str:
    said = [
        note(
            f"{night.num_queries:,} held-out users, each alone on one thread, at {night.k:,} items; recall is of the"
            f" answers of the deepest search here. {night.index}."
        )
    ]
    if len(night.curve) > 1:
        said.insert(0, figure(_drawn(night.curve)))
    rows = [
        (f"{point.effort:,}{' (chosen)' if point.chosen else ''}", f"{point.recall:.4f}", f"{point.ms:.3f}")
        for point in night.curve
    ]
    return "".join(said) + table(["Effort", "Recall", "Milliseconds"], rows)


def _drawn(points: Sequence[Point]) -> str:
    with drawing("curve", 2.8) as (axes, done):
        axes.plot([point.ms for point in points], [point.recall for point in points], color=INKS["first"])
        for chosen, ink, label in ((False, "first", "measured"), (True, "second", "chosen")):
            some = [point for point in points if point.chosen is chosen]
            axes.scatter([point.ms for point in some], [point.recall for point in some], color=INKS[ink], label=label)
        axes.set_xlabel("milliseconds a query")
        axes.set_ylabel("recall")
        axes.grid()
        legend(axes)
    return done()


def _shards(night: Night) -> str:
    rows = [(str(number), shard.items, shard.size_bytes) for number, shard in enumerate(night.shards)]
    return table(["Shard", "Items", "Bytes"], rows)


def _items(night: Night) -> str:
    diff = night.diff
    if diff is None:
        return _nothing(night)
    before, now = diff.num_items
    lines = [table(["", "Items"], [("Before", before), ("In", diff.num_in), ("Out", diff.num_out), ("Now", now)])]
    for word, number, items in (("In", diff.num_in, diff.items_in), ("Out", diff.num_out, diff.items_out)):
        if items:
            more = f" and {number - len(items):,} more" if number > len(items) else ""
            lines.append(note(f"{word}: {', '.join(map(str, items))}{more}."))
    return "".join(lines)


def _moved(night: Night) -> str:
    if night.diff is None:
        return _nothing(night)
    answers = night.diff.answers
    if answers is None:
        return note("Not known, since the pairs or the towers of this release are gone.")
    if not answers.moved:
        return note("No item is in more or fewer answers than before.")
    rows = [
        (f"{one.title or one.item} ({one.item})", one.before, one.after, f"{one.after - one.before:+,}")
        for one in answers.moved
    ]
    asked = f"Answers of {answers.k:,} items to {answers.num_queries:,} held-out users that an item is in."
    return table(["", "Before", "Now", "Change"], rows) + note(asked)


def _config(night: Night) -> str:
    if night.diff is None:
        return _nothing(night)
    if not night.diff.config:
        return note("The same as before.")
    return table(["", "Before", "Now"], [_change(change)[:3] for change in night.diff.config])


def _stages(night: Night) -> str:
    rows = [
        (one.stage, one.version, "worked" if one.worked else "found finished", f"{one.wall_s:,.1f}")
        for one in night.stages
    ]
    return table(["", "Version", "", "Seconds"], rows)


def _nothing(night: Night) -> str:
    return note(
        f"The release before cannot be read: {night.missing}" if night.missing else "No release was current before."
    )


def _change(change: Change) -> tuple[Cell, ...]:
    both = [value for value in (change.before, change.after) if isinstance(value, int | float)]
    moved = f"{both[1] - both[0]:+,.6g}" if len(both) == 2 else ""
    return change.name, _value(change.before), _value(change.after), moved


def _value(value: Any) -> Cell:
    if isinstance(value, float):
        return f"{value:,.6g}"
    return value if value is None or isinstance(value, int) else str(value)
