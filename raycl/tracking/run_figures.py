"""The figures of the run page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raycl.pages.drawing import INKS, count_axis, drawing, legend
from raycl.pages.html import text
from raycl.tracking.story import Map

Curve = Sequence[tuple[int, float]]
"""Steps and values, in the order of the steps."""

_SMOOTHED = 50
_WIDTH, _HEIGHT, _EDGE = 547.0, 420.0, 14.0
_LABELS, _GAP = 28, (118.0, 13.0)
_LONGEST_LABEL = 22


def curves(name: str, found: Mapping[str, Curve], *, smoothed: bool = False, log: bool = False) -> str:
    """Up to three curves over the steps; with ``smoothed`` each also as its running mean, and pale itself."""
    with drawing(name, 2.2) as (axes, done):
        for ink, (label, curve) in zip(("first", "second", "third"), found.items(), strict=False):
            steps, values = np.array([point[0] for point in curve]), np.array([point[1] for point in curve])
            runs = smoothed and len(curve) > _SMOOTHED
            axes.plot(
                steps,
                values,
                color=INKS[ink],
                alpha=0.25 if runs else 1.0,
                linewidth=0.8 if runs else 1.5,
                label=None if runs else label,
                marker="o" if len(curve) == 1 else None,
            )
            if runs:
                axes.plot(steps, _running_mean(values), color=INKS[ink], linewidth=1.6, label=label)
        if log:
            axes.set_yscale("log")
        axes.set_xlabel("step")
        count_axis(axes.xaxis)
        axes.grid(axis="y")
        if len(found) > 1:
            legend(axes)
    return done()


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Over a fiftieth of the values up to each."""
    width = max(2, len(values) // _SMOOTHED)
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    found: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return found


def item_map(found: Map) -> str:
    """A dot an item, its name where a mouse rests on it; the most popular are named beside it where there is room."""
    spots = np.array([(spot.x, spot.y) for spot in found.spots])
    low, high = spots.min(axis=0), spots.max(axis=0)
    places = _EDGE + (spots - low) / np.where(high > low, high - low, 1.0) * (np.array([_WIDTH, _HEIGHT]) - 2.0 * _EDGE)
    dots, names, taken = list[str](), list[str](), list[tuple[float, float]]()
    for spot, (x, y) in zip(found.spots, places, strict=True):
        place = f'cx="{x:.1f}" cy="{y:.1f}"'
        about = text(f"{spot.name} ({spot.train_count:,} events)")
        dots.append(f'<circle {place} r="2.6"><title>{about}</title></circle>')
        free = all(abs(x - left) > _GAP[0] or abs(y - top) > _GAP[1] for left, top in taken)
        if len(names) < _LABELS and free:
            taken.append((x, y))
            anchor, shift = ("end", -5) if x > _WIDTH - _GAP[0] else ("start", 5)
            name = spot.name if len(spot.name) <= _LONGEST_LABEL else f"{spot.name[: _LONGEST_LABEL - 1]}…"
            names.append(f'<text x="{x + shift:.1f}" y="{y + 3:.1f}" text-anchor="{anchor}">{text(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img"'
        f' aria-label="Map of the item vectors"><g fill="var(--first)" fill-opacity="0.4">{"".join(dots)}</g>'
        f'<g fill="var(--ink)" font-size="9.5">{"".join(names)}</g></svg>'
    )
