"""The figures of the data report as SVG that stands in a page: colours are those of the page, in light and in dark.

The drawing library is imported when a figure is drawn. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from raycl.data.report import Curve, EventType, Part
from raycl.data.report_periods import Period

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _PX = 7.6, 72
INKS = {name: f"#0102{number:02x}" for number, name in enumerate(("ink", "muted", "line", "first", "second", "third"))}
"""Colours that stand for names until the figure is text, where they become the page's variables."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "raycl",
    "font.family": ["DejaVu Sans"],  # it comes with the library, so the layout is that of every machine
    "font.size": 9,
    "text.color": INKS["ink"],
    "axes.edgecolor": INKS["line"],
    "axes.labelcolor": INKS["muted"],
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.xmargin": 0.015,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "figure.facecolor": "none",
    "grid.color": INKS["line"],
    "grid.linewidth": 0.8,
    "xtick.color": INKS["line"],
    "ytick.color": INKS["line"],
    "xtick.labelcolor": INKS["muted"],
    "ytick.labelcolor": INKS["muted"],
    "ytick.left": False,
    "xtick.minor.bottom": False,
    "ytick.minor.left": False,
    "legend.frameon": False,
    "legend.borderaxespad": 0,
    "legend.handlelength": 1.2,
}
_ID = re.compile(r' id="([^"]*)"')
_USED = re.compile(r'(?:href="#|url\(#)([^")]*)')
_LONGEST_LABEL = 28


def load() -> None:
    """Import what drawing needs: half a second that a thread can spend while others work."""


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
        _count_axis(axes.yaxis)
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
            _count_axis(axis)
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
        axes.set_yticklabels([_label(text) for text in labels], parse_math=False)
        axes.tick_params(axis="y", labelcolor=INKS["ink"])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(left=0)
        _count_axis(axes.xaxis)
        axes.grid(axis="x")
        if len(series) > 1:
            legend(axes)
        else:
            axes.set_xlabel("rows")
    return done()


@contextmanager
def drawing(name: str, height: float) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Axes of a figure of this height in inches, and what makes it text once it is drawn."""
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn: list[str] = []
    with rc_context(), warnings.catch_warnings():
        rcdefaults()  # whatever this machine is set to
        rcParams.update(_STYLE)
        # Text is drawn by whoever shows the page, with fonts of their own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(_WIDTH, height), dpi=_PX, layout="constrained")
        axes = figure.add_subplot()
        yield axes, lambda: drawn[0]
        stream = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(stream, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        drawn.append(_inline(stream.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """The ``<svg>`` element alone, in the page's colours and letters, its names apart from those of other figures."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' width="[^"]*pt" height="[^"]*pt"| height="[^"]*pt"| width="[^"]*pt"', "", svg, count=2)
    used = set(_USED.findall(svg))
    svg = _ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = _USED.sub(lambda found: found[0].replace(f"#{found[1]}", f"#{name}-{found[1]}"), svg)
    svg = re.sub(r"(font-family|font): [^;\"]*", _letters, svg)
    for ink, colour in INKS.items():
        svg = svg.replace(colour, f"var(--{ink})")
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1).strip()


def _letters(found: re.Match[str]) -> str:
    """The size of the letters, and the page's font."""
    size = re.search(r"[\d.]+px", found[0])
    return f"font-size: {size[0]}; font-family: inherit" if size else "font-family: inherit"


def _label(text: str) -> str:
    """A name that may hold anything, short and on one line."""
    plain = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return plain if len(plain) <= _LONGEST_LABEL else f"{plain[: _LONGEST_LABEL - 1]}…"


def _range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}\N{EN DASH}{last:,}"


def legend(axes: Axes) -> None:
    """Name what is drawn, above the axes."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=len(handles))


def _count_axis(axis: Any) -> None:
    """Counts with k, M and G; on an axis by powers of ten that is short, some between them too."""
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    axis.set_major_formatter(EngFormatter(sep=""))
    if axis.get_scale() == "log":
        first, last = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if last < 100 * first else (1,)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def _dates(axes: Axes, several: bool) -> None:
    import matplotlib.dates

    dates: Any = matplotlib.dates
    if several:
        locator = dates.AutoDateLocator(minticks=3, maxticks=9)  # of 5 at least, some ranges fit no interval
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    else:
        axes.xaxis.set_major_formatter(dates.DateFormatter("%Y-%m-%d"))
