"""Figures as SVG that stands in a page: colours are those of the page, in light and in dark.

The drawing library is imported when a figure is drawn. The same numbers give the same bytes.
"""

from __future__ import annotations

import importlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
    """Import what drawing needs, and find its font: half a second that a thread can spend while others work."""
    for name in ("matplotlib.backends.backend_svg", "matplotlib.dates", "matplotlib.figure", "matplotlib.style"):
        importlib.import_module(name)
    from matplotlib import font_manager

    font_manager.findfont("DejaVu Sans")


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


def short_label(text: str) -> str:
    """A name that may hold anything, short and on one line."""
    plain = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return plain if len(plain) <= _LONGEST_LABEL else f"{plain[: _LONGEST_LABEL - 1]}…"


def legend(axes: Axes) -> None:
    """Names of what is drawn, above it."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=len(handles))


def count_axis(axis: Any) -> None:
    """Counts with k, M and G; on an axis by powers of ten that is short, some between them too."""
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    axis.set_major_formatter(EngFormatter(sep=""))
    if axis.get_scale() == "log":
        first, last = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if last < 100 * first else (1,)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
