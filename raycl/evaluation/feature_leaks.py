"""Features that know the future: looked for by what they tell of held-out items that the past does not tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raycl.data.columns import whole
from raycl.data.features import PADDING, UNKNOWN, Encoder, Encoders
from raycl.evaluation.metrics import Floats, Ints

LEAST = 50
"""Users, or items with a target, below which chance tells as much as a leak."""
_LISTED, _TIMES, _ERRORS = 10, 2.0, 4.0
_BOTH, _EITHER = 0.3, 0.6
_BINS = 20


@dataclass(frozen=True)
class Held:
    """Some events of users with held-out targets: ``user`` is a row of the user table, ``item`` a vocabulary row."""

    user: Ints
    item: Ints
    is_target: Any
    """(events,) truth values; the others are of the context"""

    def part(self, *, targets: bool) -> tuple[Ints, Ints]:
        """User and item of the targets, or of the context."""
        chosen = self.is_target == targets
        return self.user[chosen], self.item[chosen]


def of_users(held: Held, encoders: Encoders, encoded: pa.Table, num_items: int) -> dict[str, str]:
    """Features of users that know their held-out items, each with what gave it away.

    Items are ranked for a user by the targets of all others of the same value; if that finds the user's own target
    among the first 10 twice as often as the contexts of users of that value do, and as the targets of all others do,
    or misses it half as often, the value was made after the target. A value that nobody else has tells nothing here.
    """
    found = {}
    (owner, target), (_, context) = held.part(targets=True), held.part(targets=False)
    known = owner >= 0
    owner, target = owner[known], target[known]
    listed = max(1, min(_LISTED, num_items // 20))
    everybody = _hits(np.zeros_like(owner), target, np.zeros_like(owner), target, num_items, listed, own=True)
    for encoder in encoders.features:
        if encoder.form == "vector":
            continue
        row, value = _values(encoder, whole(encoded[encoder.column]))
        cell, own_value = _joined(owner, row, value)
        past_cell, past_value = _joined(held.part(targets=False)[0], row, value)
        if len(cell) < LEAST:
            continue
        own = own_value, target[cell]
        by_targets = _hits(*own, *own, num_items, listed, own=True)
        by_past = _hits(*own, past_value, context[past_cell], num_items, listed, own=False)
        reached, before = float(by_targets.mean()), max(float(by_past.mean()), float(everybody.mean()))
        error = float(np.sqrt(max(reached * (1.0 - reached), 1.0 / len(cell)) / len(cell)))
        if reached > min(_TIMES * before, (1.0 + before) / _TIMES) and reached - before > _ERRORS * error:
            found[f"users.{encoder.column}"] = (
                f"the targets of other users of the same value find {reached:.1%} of {len(cell):,} targets among the"
                f" first {listed}, their past {before:.1%}"
            )
    return found


def of_items(held: Held, encoders: Encoders, encoded: pa.Table, train_counts: Ints) -> dict[str, str]:
    """Numbers of items that follow how often these are held-out targets, where training counts do not explain it.

    By the partial correlation of the number and the targets given the training events, of values and of ranks.
    """
    found: dict[str, str] = {}
    targets = np.bincount(held.part(targets=True)[1], minlength=len(train_counts))
    if np.count_nonzero(targets) < LEAST:
        return found
    for encoder in encoders.features:
        if encoder.form != "number":
            continue
        numbers = whole(encoded[encoder.column]).to_numpy(zero_copy_only=False).astype(np.float64)
        if encoder.transform == "log":
            scaled = numbers * encoder.deviation + encoder.mean
            numbers = np.sign(scaled) * np.expm1(np.abs(scaled))
        some = np.isfinite(numbers)
        columns = [column[some].astype(np.float64) for column in (numbers, targets, train_counts)]
        straight, ranked = _partial(*columns), _partial(*map(_ranks, columns))
        if min(straight, ranked) > _BOTH and max(straight, ranked) > _EITHER:
            found[f"items.{encoder.column}"] = (
                f"given the training events it follows the number of held-out ones, by a correlation of {straight:.2f},"
                f" of ranks {ranked:.2f}"
            )
    return found


def _values(encoder: Encoder, column: Any) -> tuple[Ints, Ints]:
    """Rows of the table and their known values as numbers, in ascending order of row."""
    if encoder.form == "number":
        numbers = column.to_numpy(zero_copy_only=False).astype(np.float64)
        rows = np.flatnonzero(np.isfinite(numbers))
        edges = np.unique(np.quantile(numbers[rows], np.linspace(0, 1, _BINS + 1)[1:-1])) if len(rows) else rows
        return rows, np.searchsorted(edges, numbers[rows])
    rows = np.repeat(np.arange(len(column)), column.value_lengths().to_numpy(zero_copy_only=False))
    tokens = column.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    kept = (tokens != PADDING) & (tokens != UNKNOWN)
    return rows[kept], tokens[kept]


def _joined(owner: Ints, row: Ints, value: Ints) -> tuple[Ints, Ints]:
    """Places of ``owner`` and each of its values; an owner of several values comes several times."""
    first, last = np.searchsorted(row, owner, side="left"), np.searchsorted(row, owner, side="right")
    sizes = np.where(owner >= 0, last - first, 0)
    places = np.repeat(np.arange(len(owner)), sizes)
    within = np.arange(len(places)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return places, value[first[places] + within]


def _hits(
    value: Ints, target: Ints, other_value: Ints, other_item: Ints, num_items: int, listed: int, *, own: bool
) -> Any:
    """Whether each target is among the first ``listed`` items of its value by the others' counts, (targets,).

    With ``own`` the target itself is one of the counted, and is taken away. Items of one count share their places.
    """
    cells, counts = np.unique(other_value * num_items + other_item, return_counts=True)
    of_value = cells // num_items
    most = int(counts.max(initial=0)) + 2
    ordered = np.sort(of_value * most + counts)
    wanted = value * num_items + target
    place = np.minimum(np.searchsorted(cells, wanted), max(len(cells) - 1, 0))
    mine = np.where(cells[place] == wanted, counts[place], 0) if len(cells) else np.zeros_like(wanted)
    bar = value * most + mine - int(own)
    end = np.searchsorted(ordered, (value + 1) * most)
    above = end - np.searchsorted(ordered, bar, side="right") - int(own)
    equal = np.searchsorted(ordered, bar, side="right") - np.searchsorted(ordered, bar, side="left") - int(not own)
    return (mine > int(own)) & (above + equal / 2.0 < listed)


def _partial(first: Floats, second: Floats, given: Floats) -> float:
    """Correlation of two columns given a third; 0 where one of them does not vary."""
    columns = [column - column.mean() for column in (first, second, given)]
    spread = float(columns[2] @ columns[2])
    left = [column - (column @ columns[2]) / spread * columns[2] if spread else column for column in columns[:2]]
    sizes = [float(np.sqrt(column @ column)) for column in left]
    whole_sizes = [float(np.sqrt(column @ column)) for column in columns[:2]]
    if any(size <= 1e-9 * max(total, 1e-300) for size, total in zip(sizes, whole_sizes, strict=True)):
        return 0.0
    return float(left[0] @ left[1]) / (sizes[0] * sizes[1])


def _ranks(values: Floats) -> Floats:
    """Ranks of values, the mean of theirs for equal ones."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle: Floats = ends - (counts - 1) / 2.0
    return middle[inverse]
