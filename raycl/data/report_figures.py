"""The figures of the data report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raycl.data.report import Curve, EventType, Part
from raycl.data.report_periods import Period
from raycl.pages.drawing import INKS, count_axis, drawing, legend, short_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def days(periods: Sequence[Period], unit: str) -> str:
    """Rows and events over time; there is one period or more, without gaps."""
    with drawing("days", 2.5) as (axes, done):
        starts = np.array([period.first for period in periods], dtype="datetime64[D]")
        axes.fill_between(starts, [period.rows for period in periods], color=INKS["second"], alpha=0.25, linewidth=0)
        axes.plot(starts, [period.rows for period in periods], color=INKS["second"], label="rows of the log")
        axes.plot(starts, [period.events for period in periods], color=INKS["first"], label="events after all rules")
        if len(periods) == 1:
            axes.plot(starts, [periods[0].rows], "o", color=INKS["second"])
            axes.plot(starts, [periods[0].events], "o", color=INKS["first"])
            axes.set_xticks(starts)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"a {unit}")
        count_axis(axes.yaxis)
        _dates(axes, len(periods) > 1)
        axes.grid(axis="y")
        legend(axes)
    return done()


def types(named: Sequence[EventType]) -> str:
    """Rows and events of each event type, as pairs of bars."""
    return _bars(
        "types",
        [one.type for one in named],
        {"rows of the log": [one.rows for one in named], "events after all rules": [one.events for one in named]},
        {"rows of the log": "second", "events after all rules": "first"},
    )


def drops(rows_by_reason: Mapping[str, int]) -> str:
    """Rows left out, by reason."""
    return _bars("drops", list(rows_by_reason), {"rows": list(rows_by_reason.values())}, {"rows": "second"})


def curves(users: Curve, items: Curve) -> str:
    """How many users, and items, have at least so many events; both axes by powers of ten."""
    with drawing("curves", 2.8) as (axes, done):
        for curve, label, ink in ((users, "users", "first"), (items, "items", "second")):
            points = [point for point in curve.at_least if point[0] > 0]
            if points:
                sizes, reached = zip(*points, strict=True)
                axes.step(sizes, reached, where="pre", color=INKS[ink], label=label, linewidth=1.8)
        axes.loglog()
        axes.set_xlabel("at least so many events")
        axes.set_ylabel("users or items")
        for axis in (axes.xaxis, axes.yaxis):
            count_axis(axis)
        axes.grid()
        legend(axes)
    return done()


def histories(parts: Sequence[Part], max_history: int) -> str:
    """Share of each part's targets by the length of the history, by powers of two."""
    with drawing("histories", 2.8) as (axes, done):
        bounds = sorted({(one.first, one.last) for part in parts for one in part.history.octaves})
        for number, part in enumerate(parts):
            shares = {one.first: 100 * one.number_share for one in part.history.octaves}
            places = [place + (number - (len(parts) - 1) / 2) * 0.27 for place in range(len(bounds))]
            heights = [shares.get(first, 0.0) for first, _ in bounds]
            axes.bar(places, heights, width=0.25, color=INKS[("first", "second", "third")[number]], label=part.part)
        axes.set_xticks(range(len(bounds)), [_range(*bound) for bound in bounds])
        axes.set_xlabel(f"earlier events of the target, of which at most {max_history:,} are used")
        axes.set_ylabel("% of the part's targets")
        axes.grid(axis="y")
        legend(axes)
    return done()


def spans(parts: Sequence[Part]) -> str:
    """From when to when the targets of each part are; there is one part or more with times."""
    dated = [part for part in parts if part.first and part.last]
    times = [
        [np.datetime64(moment.replace(tzinfo=None)) for moment in (part.first, part.last) if moment] for part in dated
    ]
    with drawing("spans", 0.5 + 0.32 * len(dated)) as (axes, done):
        inks = dict(zip(("train", "val", "test"), ("first", "second", "third"), strict=True))
        for place, part in enumerate(dated):
            axes.plot(
                np.array(times[place]),
                [place, place],
                color=INKS[inks[part.part]],
                linewidth=9,
                solid_capstyle="butt",
                marker="|",
                markersize=9,
            )
        axes.set_yticks(range(len(dated)), [part.part for part in dated])
        axes.set_ylim(len(dated) - 0.4, -0.6)
        _dates(axes, len({moment for span in times for moment in span}) > 1)
        axes.grid(axis="x")
    return done()


def _bars(name: str, labels: Sequence[str], series: Mapping[str, Sequence[int]], inks: Mapping[str, str]) -> str:
    """Horizontal bars, the first label on top."""
    thickness = 0.72 / len(series)
    with drawing(name, 0.75 + 0.26 * len(labels) + 0.12 * len(series)) as (axes, done):
        for number, (label, counts) in enumerate(series.items()):
            places = [place + (number - (len(series) - 1) / 2) * thickness for place in range(len(labels))]
            axes.barh(places, counts, height=thickness * 0.92, color=INKS[inks[label]], label=label)
        axes.set_yticks(range(len(labels)))
        axes.set_yticklabels([short_label(text) for text in labels], parse_math=False)
        axes.tick_params(axis="y", labelcolor=INKS["ink"])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(left=0)
        count_axis(axes.xaxis)
        axes.grid(axis="x")
        if len(series) > 1:
            legend(axes)
        else:
            axes.set_xlabel("rows")
    return done()


def _range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}\N{EN DASH}{last:,}"


def _dates(axes: Axes, several: bool) -> None:
    import matplotlib.dates

    dates: Any = matplotlib.dates
    if several:
        locator = dates.AutoDateLocator(minticks=3, maxticks=9)  # of 5 at least, some ranges fit no interval
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    else:
        axes.xaxis.set_major_formatter(dates.DateFormatter("%Y-%m-%d"))
