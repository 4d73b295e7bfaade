"""How often each size occurs, in a few hundred numbers whatever the log, and what follows for heads and tails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_EXACT = 64
"""Sizes below it have a bin each."""
_BINS_PER_OCTAVE = 32
_EXACT_OCTAVES = 6


@dataclass(frozen=True)
class Octave:
    """The sizes from a power of two to the next, or zero alone."""

    first: int
    last: int
    number: int
    """How many have such a size."""
    total: int
    """The sum of their sizes."""


@dataclass(frozen=True)
class Histogram:
    """Sizes by bin: each of its own below 64, then 32 bins a power of two, so a bin's sizes are within 1/32 of another.

    ``numbers`` and ``totals``, both of shape (bins,), say how many sizes are in each bin, and what they add up to.
    """

    numbers: Ints
    totals: Ints
    most: int
    """The largest size, 0 where there is none."""

    @classmethod
    def of(cls, sizes: npt.NDArray[Any]) -> Self:
        """The histogram of whole numbers that are not negative."""
        if not len(sizes):
            return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0)
        most = int(sizes.max())
        each = np.bincount(sizes) if most <= max(_EXACT, len(sizes)) else None
        values, repeats = np.unique_counts(sizes) if each is None else (np.flatnonzero(each), each[each > 0])
        bins = _bin_of(values.astype(np.int64))
        numbers, totals = np.zeros(bins[-1] + 1, dtype=np.int64), np.zeros(bins[-1] + 1, dtype=np.int64)
        np.add.at(numbers, bins, repeats)
        np.add.at(totals, bins, values * repeats)
        return cls(numbers, totals, most)

    @classmethod
    def merged(cls, parts: Sequence[Histogram]) -> Self:
        """The histogram of all sizes of the parts, in any order."""
        size = max((len(part.numbers) for part in parts), default=0)
        numbers, totals = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        for part in parts:
            numbers[: len(part.numbers)] += part.numbers
            totals[: len(part.totals)] += part.totals
        return cls(numbers, totals, max((part.most for part in parts), default=0))

    def to_json(self) -> dict[str, Any]:
        """Plain values: the bins that are not empty."""
        bins = np.flatnonzero(self.numbers)
        return {
            "bins": bins.tolist(),
            "numbers": self.numbers[bins].tolist(),
            "totals": self.totals[bins].tolist(),
            "most": self.most,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """What ``to_json`` made."""
        size = max(plain["bins"], default=-1) + 1
        numbers, totals = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        numbers[plain["bins"]] = plain["numbers"]
        totals[plain["bins"]] = plain["totals"]
        return cls(numbers, totals, int(plain["most"]))

    @property
    def number(self) -> int:
        """How many sizes there are."""
        return int(self.numbers.sum())

    @property
    def total(self) -> int:
        """Their sum."""
        return int(self.totals.sum())

    def quantile(self, share: float) -> int:
        """The least size that this share of the sizes does not exceed: exact below 64, above it its bin's rounded mean.

        0 where there is none.
        """
        if not self.number:
            return 0
        place = int(np.searchsorted(np.cumsum(self.numbers), max(share * self.number, 1)))
        return round(int(self.totals[place]) / int(self.numbers[place]))

    def head_share(self, share: float) -> float:
        """What the largest sizes hold of the sum: this share of them, rounded up. 0.0 where the sum is 0.

        Where the cut falls into a bin of several sizes, its mean stands for each of them.
        """
        if not self.total:
            return 0.0
        left = np.ceil(round(share * self.number, 6))  # 0.07 * 100 is more than 7
        numbers, totals = self.numbers[::-1], self.totals[::-1]
        taken = np.clip(left - (np.cumsum(numbers) - numbers), 0, numbers)
        return float(np.sum(taken * totals / np.maximum(numbers, 1)) / self.total)

    def gini(self) -> float:
        """The Gini coefficient: 0.0 where all sizes are equal, towards 1.0 where one holds the sum.

        Twice the area between the diagonal and the Lorenz curve, which is straight within a bin.
        """
        if not self.total:
            return 0.0
        reached = np.cumsum(self.totals)
        area = np.sum(self.numbers * (2.0 * reached - self.totals)) / (2.0 * self.number * self.total)
        return float(max(0.0, 1.0 - 2.0 * area))

    def octaves(self) -> list[Octave]:
        """The histogram by powers of two, from the smallest size that occurs to the largest."""
        found = []
        for first, last, bins in _octave_bins(len(self.numbers)):
            found.append(Octave(first, last, int(self.numbers[bins].sum()), int(self.totals[bins].sum())))
        occupied = [place for place, octave in enumerate(found) if octave.number]
        return found[occupied[0] : occupied[-1] + 1] if occupied else []

    def at_least(self) -> tuple[Ints, Ints]:
        """Where sizes occur: the least size of each bin, and how many sizes reach it."""
        bins = np.flatnonzero(self.numbers)
        return _least_of(bins), np.cumsum(self.numbers[::-1])[::-1][bins]


def _bin_of(sizes: Ints) -> Ints:
    octaves = np.maximum(np.frexp(sizes.astype(np.float64))[1] - 1, _EXACT_OCTAVES).astype(np.int64)
    within = (sizes >> (octaves - 5)) - _BINS_PER_OCTAVE
    return np.where(sizes < _EXACT, sizes, _EXACT + (octaves - _EXACT_OCTAVES) * _BINS_PER_OCTAVE + within)


def _least_of(bins: Ints) -> Ints:
    octaves, within = np.divmod(np.maximum(bins - _EXACT, 0), _BINS_PER_OCTAVE)
    return np.where(bins < _EXACT, bins, (_BINS_PER_OCTAVE + within) << (octaves + 1))


def _octave_bins(num_bins: int) -> list[tuple[int, int, slice]]:
    """First and last size of each power of two, and its bins."""
    found, start = [(0, 0, slice(0, 1))], 1
    while start < num_bins:
        first = int(_least_of(np.array([start]))[0])
        stop = int(_bin_of(np.array([2 * first]))[0])
        found.append((first, 2 * first - 1, slice(start, stop)))
        start = stop
    return found if num_bins else []
