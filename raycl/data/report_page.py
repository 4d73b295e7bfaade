"""The data report as one page that needs nothing else: figures, and under each its numbers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raycl.data import report_figures as figures
from raycl.data.report import Change, Cold, Curve, Days, Drift, EventTypes, Part, Report
from raycl.data.report_periods import central, periods, without_gaps
from raycl.pages.html import Cell, cards, counted, figure, note, page, percent, section, shown, table, text

_TABLE_PERIODS, _FIGURE_PERIODS = 31, 400
_MOST_BARS = 12


def render(report: Report) -> str:
    """The page: HTML that is well-formed XML too; the same report gives the same bytes."""
    body = [
        f"<header><p>raycl pairs {text(report.fingerprint[:12])}</p><h1>Data report</h1></header>",
        _summary(report),
        section("Events by day", _days(report.days)),
        section("Event types", _types(report.types)),
        section("Rows left out", _dropped(report)),
        section("Activity and popularity", _curves(report.users, report.items)),
        section("History of the targets", _histories(report.parts, report.max_history)),
        section("Parts of the split", _parts(report.parts)),
        section("Items that training never sees", _cold(report.cold)),
        section("Nulls", _nulls(report)),
        section("Drift", _drift(report.drift)),
        "<footer><p>Days are in UTC. The same numbers, and more of them, are in <code>report.json</code>.</p></footer>",
    ]
    return page("Data report", body)


def _summary(report: Report) -> str:
    days = [day for day in report.days.counts if day.events]
    named: list[tuple[str, str, str]] = [
        ("Rows of the log", shown(report.rows), ""),
        (
            "Events after all rules",
            shown(report.events),
            f"{percent(_ratio(report.events, report.rows))} of the rows",
        ),
        ("Days with events", shown(len(days)), f"{days[0].day} to {days[-1].day}" if days else "no times"),
        ("Users", shown(report.users.number), f"{report.users.mean:,.1f} events each"),
        ("Items", shown(report.items.number), f"{percent(report.cold.cold_share)} never in training"),
        ("Pairs", shown(sum(part.pairs for part in report.parts)), f"{shown(report.parts[0].pairs)} to train on"),
    ]
    return cards(named)


def _days(days: Days) -> str:
    lines = []
    if days.counts:
        inner = central(days.counts)
        unit, drawn = periods(without_gaps(inner), _FIGURE_PERIODS)
        lines.append(figure(figures.days(drawn, unit)))
        if left_out := sum(day.rows for day in days.counts) - sum(day.rows for day in inner):
            lines.append(note(f"Not drawn, far from the others in time: {counted(left_out, 'row')}."))
        unit, listed = periods(days.counts, _TABLE_PERIODS)
        lines.append(
            table([unit.capitalize(), "Rows", "Events"], [(one.first, one.rows, one.events) for one in listed])
        )
        if unit != "day":
            lines.append(note(f"A {unit} is named by its first day; report.json has every day."))
    else:
        lines.append(note("No row has a believable time."))
    if days.counts and days.undated_rows:
        lines.append(note(f"Without a believable time: {counted(days.undated_rows, 'row')}."))
    if days.undated_events:
        lines.append(note(f"Of logs that have no times: {counted(days.undated_events, 'event')}."))
    return "".join(lines)


def _types(types: EventTypes) -> str:
    named = sorted(types.named, key=lambda one: (-one.rows, one.type))
    rows = [(one.type, one.rows, percent(one.rows_share), one.events, percent(one.events_share)) for one in named]
    lines = [
        figure(figures.types(named[:_MOST_BARS])),
        note(f"Drawn: the {_MOST_BARS} with the most rows.") if len(named) > _MOST_BARS else "",
        table(["Type", "Rows", "Share", "Events", "Share"], rows),
    ]
    if types.null_rows:
        lines.append(note(f"Without a type: {counted(types.null_rows, 'row')}."))
    if types.unknown:
        rest = [("all others", types.unknown_rest_rows)] if types.unknown_rest_rows else []
        lines.append("<h3>Types that <code>event_weights</code> does not name</h3>")
        lines.append(table(["Type", "Rows"], [*((one.type, one.rows) for one in types.unknown), *rest]))
    return "".join(lines)


def _dropped(report: Report) -> str:
    if not report.dropped:
        return note("Every row became an event.")
    lost = sum(one.rows for one in report.dropped)
    rows = [(one.reason, one.rows, percent(one.share)) for one in report.dropped]
    rows.append(("all of them", lost, percent(_ratio(lost, report.rows))))
    return figure(figures.drops({one.reason: one.rows for one in report.dropped})) + table(
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
        ("Events of the largest 1 %", [percent(users.top_1_percent), percent(items.top_1_percent)]),
        ("Events of the largest 10 %", [percent(users.top_10_percent), percent(items.top_10_percent)]),
        ("Gini coefficient", [f"{users.gini:.3f}", f"{items.gini:.3f}"]),
    ]
    return (
        figure(figures.curves(users, items))
        + table(["", "Users", "Items"], [(name, *values) for name, values in measures])
        + note("Users with their events after all rules; items with their good rows in the log.")
        + '<div class="beside">'
        + f"<div><h3>Users</h3>{_octaves('Events', 'Users', users)}</div>"
        + f"<div><h3>Items</h3>{_octaves('Events', 'Items', items)}</div></div>"
    )


def _octaves(size: str, counted: str, curve: Curve) -> str:
    rows = [
        (_range(one.first, one.last), one.number, percent(one.number_share), percent(one.total_share))
        for one in curve.octaves
    ]
    return table([size, counted, "Share", "Of all events"], rows)


def _histories(parts: Sequence[Part], max_history: int) -> str:
    if not any(part.history.number for part in parts):
        return note("There are no targets.")
    bounds = sorted({(one.first, one.last) for part in parts for one in part.history.octaves})
    found = [{one.first: one for one in part.history.octaves} for part in parts]
    rows: list[tuple[Cell, ...]] = []
    for first, last in bounds:
        numbers = [octaves[first].number if first in octaves else 0 for octaves in found]
        rows.append((_range(first, last), *numbers))
    rows.append(("Mean", *(f"{part.history.mean:,.1f}" for part in parts)))
    rows.append(("Median", *(part.history.median for part in parts)))
    rows.append((f"More than {max_history:,}", *(percent(part.cut_share) for part in parts)))
    return figure(figures.histories(parts, max_history)) + table(
        ["Earlier events", *(f"{part.part} targets" for part in parts)], rows
    )


def _parts(parts: Sequence[Part]) -> str:
    drawn = figure(figures.spans(parts)) if any(part.first for part in parts) else ""
    rows = [(one.part, one.users, one.pairs, percent(one.pairs_share), one.first, one.last) for one in parts]
    return drawn + table(["Part", "Users", "Pairs", "Share", "First target", "Last target"], rows)


def _cold(cold: Cold) -> str:
    rows = [
        ("Items", cold.items, cold.cold_items, percent(cold.cold_share)),
        ("Validation targets", cold.val_targets, cold.val_cold_targets, percent(cold.val_cold_share)),
        ("Test targets", cold.test_targets, cold.test_cold_targets, percent(cold.test_cold_share)),
    ]
    return table(["", "All", "Never in training", "Share"], rows) + note(
        "Only an item's features can recommend it where training never sees it."
    )


def _nulls(report: Report) -> str:
    rows = [(one.column, one.nulls, one.rows, percent(one.share)) for one in report.nulls]
    return table(["Column", "Nulls", "Rows", "Share"], rows)


def _drift(drift: Drift) -> str:
    if drift.against is None:
        return note(f"Not compared: {drift.reason}.")
    lines = [note(f"Compared with {drift.against}, the newest version of another log or config.")]
    if drift.config:
        lines.append(note(f"The config differs too: {', '.join(drift.config)}."))
    distances = [(name, f"{distance:.4f}") for name, distance in drift.distances]
    sizes = [(one.measure, _amount(one.before), _amount(one.now), _growth(one)) for one in drift.sizes]
    if drift.common_days and (common := drift.common_days_rows):
        name = f"rows of {counted(drift.common_days, 'day')} in both"
        sizes.append((name, _amount(common.before), _amount(common.now), _growth(common)))
    items = [
        ("New: events now, none before", drift.new_items, f"{percent(drift.new_items_share)} of the events now"),
        ("Gone: events before, none now", drift.gone_items, f"{percent(drift.gone_items_share)} of those before"),
    ]
    lines += [
        table(["", "Before", "Now", "Change"], sizes),
        "<h3>Distance of the shares</h3>",
        table(["Of", "Jensen\N{EN DASH}Shannon distance"], distances),
        note("0 where all shares are equal, 1 where nothing is common."),
        "<h3>Items</h3>",
        table(["", "Items", "Share"], items),
    ]
    for title, changes in (("Event types", drift.types), ("Rows left out", drift.dropped), ("Nulls", drift.nulls)):
        if changes:
            shares = [(one.measure, percent(one.before), percent(one.now), _points(one)) for one in changes]
            lines += [f"<h3>{title}, share</h3>", table(["", "Before", "Now", "Change"], shares)]
    return "".join(lines)


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
