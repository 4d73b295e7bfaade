"""Two augmented views of one history, for losses that draw them together.

The operations are those of CL4SRec (Xie et al., ICDE 2022) and, with correlated items, CoSeRec (Liu et al., 2021).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raycl.data.packed import Flags, Rows, Sequences

CROP, MASK, REORDER, SUBSTITUTE = range(4)


@dataclass(frozen=True)
class Augmentation:
    """Which share of a history each operation touches; None leaves the operation out. ValueError without any."""

    crop: float | None = 0.6
    """Keep a run of this share of the items."""
    mask: float | None = 0.3
    """Leave out this share of the items, drawn alone."""
    reorder: float | None = 0.6
    """Shuffle a run of this share of the items."""
    substitute: float | None = None
    """Put a correlated item in the place of this share of the items, drawn alone."""

    def __post_init__(self) -> None:
        shares = {name: share for name, share in vars(self).items() if share is not None}
        if not shares:
            raise ValueError("no operation has a share: give one of crop, mask, reorder and substitute")
        for name, share in shares.items():
            if not 0.0 < share < 1.0:
                raise ValueError(f"{name}={share} is no share of a history: use more than 0 and less than 1")

    def shares(self) -> dict[int, float]:
        """Operation to share, of those that are chosen."""
        named = {CROP: self.crop, MASK: self.mask, REORDER: self.reorder, SUBSTITUTE: self.substitute}
        return {operation: share for operation, share in named.items() if share is not None}


def two_views(
    history: Rows, how: Augmentation, generator: np.random.Generator, neighbours: Rows | None = None
) -> tuple[Rows, Rows]:
    """Two views (rows, width) of each history, by operations drawn apart; see ``view``."""
    return view(history, how, generator, neighbours), view(history, how, generator, neighbours)


def view(history: Rows, how: Augmentation, generator: np.random.Generator, neighbours: Rows | None = None) -> Rows:
    """One operation, drawn for each row, on histories (rows, width) as ``reader.Batch`` has them: items, then -1.

    A history keeps at least one item, and one of a single item stays as it is unless it is substituted. ``neighbours``
    (num_items,) holds the item that stands in for each, -1 for none; ValueError where it is needed and absent.
    """
    shares = how.shares()
    if SUBSTITUTE in shares and neighbours is None:
        raise ValueError("substitute needs neighbours: give the row of a correlated item for each item")
    sizes = (history >= 0).sum(1)
    operation = generator.choice(list(shares), len(history))
    changed = history.copy()
    for one, share in shares.items():
        rows = np.flatnonzero(operation == one)
        part, size = history[rows], sizes[rows]
        if one == CROP:
            changed[rows] = _keep(part, _run(size, share, history.shape[1], generator))
        elif one == MASK:
            changed[rows] = _keep(part, ~_some(part, size, share, generator))
        elif one == REORDER:
            changed[rows] = _shuffle(part, _run(size, share, history.shape[1], generator), generator)
        elif neighbours is not None:
            changed[rows] = _replace(part, _some(part, size, share, generator), neighbours)
    return changed


def correlated(parts: Iterable[Sequences], num_items: int) -> Rows:
    """The item that most often follows or precedes each within a user's sequence, by cosine; (num_items,), -1 for none.

    Cosine of two items is the number of times they are neighbours over the root of the product of their totals; equal
    ones go to the lower row. Memory is that of the sequences, not of all pairs of items.
    """
    keys, counts = np.unique(np.concatenate([_beside(part, num_items) for part in parts]), return_counts=True)
    item, other = keys // num_items, keys % num_items
    totals = np.bincount(item, weights=counts, minlength=num_items)
    cosine = counts / np.sqrt(totals[item] * totals[other])
    order = np.lexsort((other, -cosine, item))
    first = order[np.flatnonzero(np.diff(item[order], prepend=-1))]
    found = np.full(num_items, -1, dtype=np.int32)
    found[item[first]] = other[first]
    return found


def _beside(sequences: Sequences, num_items: int) -> npt.NDArray[np.int64]:
    """Both orders of every two different items that follow each other, as ``item * num_items + other``."""
    starts = sequences.offsets[:-1]
    follows = np.ones(len(sequences.items), dtype=np.bool_)
    follows[starts[starts < len(follows)]] = False
    second = np.flatnonzero(follows)
    left, right = sequences.items[second - 1].astype(np.int64), sequences.items[second].astype(np.int64)
    apart = left != right
    return np.concatenate([left[apart] * num_items + right[apart], right[apart] * num_items + left[apart]])


def _touched(sizes: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.int64]:
    """How many items of each history an operation touches: at least one."""
    return np.asarray(np.maximum(1, np.floor(share * sizes)), dtype=np.int64)


def _run(sizes: npt.NDArray[np.int64], share: float, width: int, generator: np.random.Generator) -> Flags:
    """A run of the share of each history, at a place drawn evenly; (rows, width)."""
    length = _touched(sizes, share)
    start = (generator.random(len(sizes)) * np.maximum(sizes - length + 1, 1)).astype(np.int64)
    columns = np.arange(width)
    stop = np.minimum(start + length, sizes)
    return np.asarray((columns >= start[:, None]) & (columns < stop[:, None]))


def _some(history: Rows, sizes: npt.NDArray[np.int64], share: float, generator: np.random.Generator) -> Flags:
    """The share of each history's items, drawn alone; never all of two or more."""
    drawn = np.where(history >= 0, generator.random(history.shape), 2.0)
    rank = drawn.argsort(axis=1).argsort(axis=1)
    return (rank < _touched(sizes, share)[:, None]) & (history >= 0)


def _keep(history: Rows, kept: Flags) -> Rows:
    """The kept items moved together, in their order; a history of which none is kept stays whole."""
    kept = kept & (history >= 0)
    kept = np.where(kept.any(1, keepdims=True), kept, history >= 0)
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.where(np.take_along_axis(kept, order, 1), np.take_along_axis(history, order, 1), np.int32(-1))


def _shuffle(history: Rows, run: Flags, generator: np.random.Generator) -> Rows:
    """The items of the run in a drawn order, all others in their places."""
    columns = np.arange(history.shape[1], dtype=np.float64)
    start, length = run.argmax(1)[:, None], run.sum(1)[:, None]
    keys = np.where(run, start + generator.random(history.shape) * length, columns)
    keys = np.where(columns < start, columns - 1.0, np.where(run, keys, columns + 1.0))
    return np.take_along_axis(history, np.argsort(keys, axis=1, kind="stable"), 1)


def _replace(history: Rows, chosen: Flags, neighbours: Rows) -> Rows:
    stand_in = neighbours[np.maximum(history, 0)]
    return np.where(chosen & (stand_in >= 0), stand_in, history).astype(np.int32)
