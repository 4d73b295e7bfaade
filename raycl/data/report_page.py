"""The data report as one page that needs nothing else: figures, and under each its numbers as a table."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from raycl.data import report_figures as figures
from raycl.data.report import Change, Cold, Curve, Days, Drift, EventTypes, Part, Report
from raycl.data.report_periods import central, periods, without_gaps
from raycl.data.report_style import STYLE

_TABLE_PERIODS, _FIGURE_PERIODS = 31, 400
_MOST_BARS = 12

Cell = str | int | float | date | datetime | None


def render(report: Report) -> str:
    """The page: HTML that is well-formed XML too; the same report gives the same bytes."""
    body = [
        f"<header><p>raycl pairs {_text(report.fingerprint[:12])}</p><h1>Data report</h1></header>",
        _summary(report),
        _section("Events by day", _days(report.days)),
        _section("Event types", _types(report.types)),
        _section("Rows left out", _dropped(report)),
        _section("Activity and popularity", _curves(report.users, report.items)),
        _section("History of the targets", _histories(report.parts, report.max_history)),
        _section("Parts of the split", _parts(report.parts)),
        _section("Items that training never sees", _cold(report.cold)),
        _section("Nulls", _nulls(report)),
        _section("Drift", _drift(report.drift)),
        "<footer><p>Days are in UTC. The same numbers, and more of them, are in <code>report.json</code>.</p></footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/><title>Data report</title>'
        f"<style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def _summary(report: Report) -> str:
    days = [day for day in report.days.counts if day.events]
    named: list[tuple[str, str, str]] = [
        ("Rows of the log", _shown(report.rows), ""),
        (
            "Events after all rules",
            _shown(report.events),
            f"{_percent(_ratio(report.events, report.rows))} of the rows",
        ),
        ("Days with events", _shown(len(days)), f"{days[0].day} to {days[-1].day}" if days else "no times"),
        ("Users", _shown(report.users.number), f"{report.users.mean:,.1f} events each"),
        ("Items", _shown(report.items.number), f"{_percent(report.cold.cold_share)} never in training"),
        ("Pairs", _shown(sum(part.pairs for part in report.parts)), f"{_shown(report.parts[0].pairs)} to train on"),
    ]
    cards = (f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in named)
    return f'<dl class="cards">{"".join(cards)}</dl>'


def _days(days: Days) -> str:
    lines = []
    if days.counts:
        inner = central(days.counts)
        unit, drawn = periods(without_gaps(inner), _FIGURE_PERIODS)
        lines.append(_figure(figures.days(drawn, unit)))
        if left_out := sum(day.rows for day in days.counts) - sum(day.rows for day in inner):
            lines.append(_note(f"Not drawn, far from the others in time: {_counted(left_out, 'row')}."))
        unit, shown = periods(days.counts, _TABLE_PERIODS)
        lines.append(
            _table([unit.capitalize(), "Rows", "Events"], [(one.first, one.rows, one.events) for one in shown])
        )
        if unit != "day":
            lines.append(_note(f"A {unit} is named by its first day; report.json has every day."))
    else:
        lines.append(_note("No row has a believable time."))
    if days.counts and days.undated_rows:
        lines.append(_note(f"Without a believable time: {_counted(days.undated_rows, 'row')}."))
    if days.undated_events:
        lines.append(_note(f"Of logs that have no times: {_counted(days.undated_events, 'event')}."))
    return "".join(lines)


def _types(types: EventTypes) -> str:
    named = sorted(types.named, key=lambda one: (-one.rows, one.type))
    rows = [(one.type, one.rows, _percent(one.rows_share), one.events, _percent(one.events_share)) for one in named]
    lines = [
        _figure(figures.types(named[:_MOST_BARS])),
        _note(f"Drawn: the {_MOST_BARS} with the most rows.") if len(named) > _MOST_BARS else "",
        _table(["Type", "Rows", "Share", "Events", "Share"], rows),
    ]
    if types.null_rows:
        lines.append(_note(f"Without a type: {_counted(types.null_rows, 'row')}."))
    if types.unknown:
        rest = [("all others", types.unknown_rest_rows)] if types.unknown_rest_rows else []
        lines.append("<h3>Types that <code>event_weights</code> does not name</h3>")
        lines.append(_table(["Type", "Rows"], [*((one.type, one.rows) for one in types.unknown), *rest]))
    return "".join(lines)


def _dropped(report: Report) -> str:
    if not report.dropped:
        return _note("Every row became an event.")
    lost = sum(one.rows for one in report.dropped)
    rows = [(one.reason, one.rows, _percent(one.share)) for one in report.dropped]
    rows.append(("all of them", lost, _percent(_ratio(lost, report.rows))))
    return _figure(figures.drops({one.reason: one.rows for one in report.dropped})) + _table(
        ["Reason", "Rows", "Share of the log"], rows
    )


def _curves(users: Curve, items: Curve) -> str:
    measures: list[tuple[str, list[Cell]]] = [
        ("Number", [users.number, items.number]),
        ("Events", [users.total, items.total]),
        ("Mean events", [f"{users.mean:,.2f}", f"{items.mean:,.2f}"]),
        ("Median", [users.median, items.median]),
        ("90 of 100 have at most", [users.p90, items.p90]),
        ("99 of 100 have at most", [users.p99, items.p99]),
        ("Most", [users.most, items.most]),
        ("Events of the largest 1 %", [_percent(users.top_1_percent), _percent(items.top_1_percent)]),
        ("Events of the largest 10 %", [_percent(users.top_10_percent), _percent(items.top_10_percent)]),
        ("Gini coefficient", [f"{users.gini:.3f}", f"{items.gini:.3f}"]),
    ]
    return (
        _figure(figures.curves(users, items))
        + _table(["", "Users", "Items"], [(name, *values) for name, values in measures])
        + _note("Users with their events after all rules; items with their good rows in the log.")
        + '<div class="beside">'
        + f"<div><h3>Users</h3>{_octaves('Events', 'Users', users)}</div>"
        + f"<div><h3>Items</h3>{_octaves('Events', 'Items', items)}</div></div>"
    )


def _octaves(size: str, counted: str, curve: Curve) -> str:
    rows = [
        (_range(one.first, one.last), one.number, _percent(one.number_share), _percent(one.total_share))
        for one in curve.octaves
    ]
    return _table([size, counted, "Share", "Of all events"], rows)


def _histories(parts: Sequence[Part], max_history: int) -> str:
    if not any(part.history.number for part in parts):
        return _note("There are no targets.")
    bounds = sorted({(one.first, one.last) for part in parts for one in part.history.octaves})
    found = [{one.first: one for one in part.history.octaves} for part in parts]
    rows: list[tuple[Cell, ...]] = []
    for first, last in bounds:
        numbers = [octaves[first].number if first in octaves else 0 for octaves in found]
        rows.append((_range(first, last), *numbers))
    rows.append(("Mean", *(f"{part.history.mean:,.1f}" for part in parts)))
    rows.append(("Median", *(part.history.median for part in parts)))
    rows.append((f"More than {max_history:,}", *(_percent(part.cut_share) for part in parts)))
    return _figure(figures.histories(parts, max_history)) + _table(
        ["Earlier events", *(f"{part.part} targets" for part in parts)], rows
    )


def _parts(parts: Sequence[Part]) -> str:
    drawn = _figure(figures.spans(parts)) if any(part.first for part in parts) else ""
    rows = [(one.part, one.users, one.pairs, _percent(one.pairs_share), one.first, one.last) for one in parts]
    return drawn + _table(["Part", "Users", "Pairs", "Share", "First target", "Last target"], rows)


def _cold(cold: Cold) -> str:
    rows = [
        ("Items", cold.items, cold.cold_items, _percent(cold.cold_share)),
        ("Validation targets", cold.val_targets, cold.val_cold_targets, _percent(cold.val_cold_share)),
        ("Test targets", cold.test_targets, cold.test_cold_targets, _percent(cold.test_cold_share)),
    ]
    return _table(["", "All", "Never in training", "Share"], rows) + _note(
        "Only an item's features can recommend it where training never sees it."
    )


def _nulls(report: Report) -> str:
    rows = [(one.column, one.nulls, one.rows, _percent(one.share)) for one in report.nulls]
    return _table(["Column", "Nulls", "Rows", "Share"], rows)


def _drift(drift: Drift) -> str:
    if drift.against is None:
        return _note(f"Not compared: {drift.reason}.")
    lines = [_note(f"Compared with {drift.against}, the newest version of another log or config.")]
    if drift.config:
        lines.append(_note(f"The config differs too: {', '.join(drift.config)}."))
    distances = [(name, f"{distance:.4f}") for name, distance in drift.distances]
    sizes = [(one.measure, _amount(one.before), _amount(one.now), _growth(one)) for one in drift.sizes]
    if drift.common_days and (common := drift.common_days_rows):
        name = f"rows of {_counted(drift.common_days, 'day')} in both"
        sizes.append((name, _amount(common.before), _amount(common.now), _growth(common)))
    items = [
        ("New: events now, none before", drift.new_items, f"{_percent(drift.new_items_share)} of the events now"),
        ("Gone: events before, none now", drift.gone_items, f"{_percent(drift.gone_items_share)} of those before"),
    ]
    lines += [
        _table(["", "Before", "Now", "Change"], sizes),
        "<h3>Distance of the shares</h3>",
        _table(["Of", "Jensen\N{EN DASH}Shannon distance"], distances),
        _note("0 where all shares are equal, 1 where nothing is common."),
        "<h3>Items</h3>",
        _table(["", "Items", "Share"], items),
    ]
    for title, changes in (("Event types", drift.types), ("Rows left out", drift.dropped), ("Nulls", drift.nulls)):
        if changes:
            shares = [(one.measure, _percent(one.before), _percent(one.now), _points(one)) for one in changes]
            lines += [f"<h3>{title}, share</h3>", _table(["", "Before", "Now", "Change"], shares)]
    return "".join(lines)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>"


def _note(text: str) -> str:
    return f'<p class="note">{_text(text)}</p>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table whose first column names the row; every cell is escaped."""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{_shown(row[0])}</th>' + "".join(f"<td>{_shown(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _shown(cell: Cell) -> str:
    """A cell as text: numbers with separators of thousands, times to the minute."""
    if cell is None:
        return "\N{EN DASH}"
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%d %H:%M}"
    if isinstance(cell, int | float):
        return f"{cell:,}"
    return _text(str(cell))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _text(text: str) -> str:
    """Text that means nothing to a browser; what cannot be printed, and so could not be in XML, is replaced."""
    plain = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return html.escape(plain)


def _percent(share: float) -> str:
    if 0.0 < share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %"


def _points(change: Change) -> str:
    return f"{100 * (change.now - change.before):+.2f} points"


def _growth(change: Change) -> str:
    return f"{100 * (change.now / change.before - 1):+,.1f} %" if change.before else "\N{EN DASH}"


def _amount(value: Any) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}\N{EN DASH}{last:,}"


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
