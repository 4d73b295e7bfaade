"""From the nearest items to the answer's: diversity, caps, less popularity, and a share for exploration.

Candidates come with scores (n,) and, where their likeness matters, with vectors of unit length (n, dim).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from raycl.index.selection import Mask

Scores = npt.NDArray[np.float32]
Gains = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]

_LEAST_VOLUME = 1e-6


@dataclass(frozen=True)
class Wish:
    """What an answer should be besides near; ``api.Diversity`` says what each part means."""

    method: Literal["mmr", "dpp"] | None = None
    strength: float = 0.0
    explore: float = 0.0
    seed: int = 0


@dataclass
class Order:
    """Places of the chosen candidates in the answer's order, which of them chance chose, and whether time ran out."""

    places: list[int]
    explored: set[int] = field(default_factory=set)
    out_of_time: bool = False


class Caps:
    """At most so many items of one value, for each capped column; an item without a value is never capped."""

    def __init__(self, columns: Sequence[tuple[Codes, int]]) -> None:
        """Of each column the code (n,) of every candidate, -1 for none, and how many may share one."""
        self._columns = columns
        self._taken: list[dict[int, int]] = [{} for _ in columns]

    def take(self, place: int, is_open: Mask) -> None:
        """Count a chosen candidate, and close in ``is_open`` (n,) those that may not come any more."""
        is_open[place] = False
        for (codes, most), taken in zip(self._columns, self._taken, strict=True):
            code = int(codes[place])
            if code >= 0:
                taken[code] = taken.get(code, 0) + 1
                if taken[code] >= most:
                    is_open[codes == code] = False


class _Choice(Protocol):
    def gains(self) -> Gains:
        """What each candidate adds to those chosen, (n,)."""

    def take(self, place: int) -> None:
        """Add a candidate."""


class _ByScore:
    def __init__(self, scores: Scores) -> None:
        self._gains = scores.astype(np.float64)

    def gains(self) -> Gains:
        return self._gains

    def take(self, place: int) -> None:
        """Scores do not depend on what was chosen."""


class _Mmr:
    """Maximal marginal relevance (Carbonell and Goldstein 1998): the score less the likeness to the likest chosen."""

    def __init__(self, scores: Scores, vectors: Vectors, strength: float) -> None:
        self._own, self._vectors, self._strength = (1.0 - strength) * scores.astype(np.float64), vectors, strength
        self._likest: Gains | None = None

    def gains(self) -> Gains:
        return self._own if self._likest is None else self._own - self._strength * self._likest

    def take(self, place: int) -> None:
        alike = (self._vectors @ self._vectors[place]).astype(np.float64)
        self._likest = alike if self._likest is None else np.maximum(self._likest, alike)


class _Dpp:
    """Greedy MAP of a determinantal point process by Cholesky rows (Chen, Zhang and Zhou, NeurIPS 2018, algorithm 1).

    The kernel is ``Diag(q) S Diag(q)`` with ``S = (1 + cosine) / 2`` and ``q = exp(a score)``, where
    ``a = (1 - strength) / (2 strength)`` (section 4). The logarithm of its determinant falls apart into
    ``2 a score`` of each item and ``log det S``, so the rows are those of S alone.
    """

    def __init__(self, scores: Scores, vectors: Vectors, strength: float) -> None:
        self._own = (1.0 - strength) / strength * scores.astype(np.float64)
        self._vectors = vectors.astype(np.float64)
        self._volume = np.ones(len(scores))
        self._rows: list[Gains] = []

    def gains(self) -> Gains:
        """Minus infinity for what lies in the span of those chosen."""
        gains = np.full(len(self._own), -np.inf)
        free = self._volume > _LEAST_VOLUME
        gains[free] = self._own[free] + np.log(self._volume[free])
        return gains

    def take(self, place: int) -> None:
        if self._volume[place] <= _LEAST_VOLUME:
            return
        row = (1.0 + self._vectors @ self._vectors[place]) / 2.0
        for earlier in self._rows:
            row = row - earlier * earlier[place]
        row = row / np.sqrt(self._volume[place])
        self._rows.append(row)
        self._volume = self._volume - row**2


def discounted(scores: Scores, counts: npt.NDArray[np.int64], discount: float, most: int) -> Scores:
    """Scores less ``discount`` times the logarithm of each item's count, as a share of that of the count ``most``."""
    return np.asarray(scores - discount * np.log1p(counts) / np.log1p(max(most, 1)), dtype=np.float32)


def order(
    scores: Scores, vectors: Vectors | None, k: int, wish: Wish, caps: Caps, go_on: Callable[[], bool] = lambda: True
) -> Order:
    """At most ``k`` of the candidates, fewer where the caps leave no more; ties go to the earlier candidate.

    The share ``wish.explore`` of the places, rounded, goes to candidates that are drawn evenly, by the seed, from those
    that the rest leaves; they stand anywhere but first. Once ``go_on`` says that there is no time for another step of
    the method, the rest is by score.
    """
    is_open = np.ones(len(scores), dtype=np.bool_)
    num_explored = min(round(wish.explore * k), max(len(scores) - k, 0))
    found = Order([])
    choice: _Choice = _ByScore(scores)
    if vectors is not None and wish.method is not None and wish.strength > 0.0:
        choice = (_Mmr if wish.method == "mmr" else _Dpp)(scores, vectors, wish.strength)
    while len(found.places) < k - num_explored and is_open.any():
        if not isinstance(choice, _ByScore) and not go_on():
            choice, found.out_of_time = _ByScore(scores), True
        gains = np.where(is_open, choice.gains(), -np.inf)
        if np.isneginf(gains.max()):
            gains = np.where(is_open, scores, -np.inf)
        place = int(gains.argmax())
        found.places.append(place)
        choice.take(place)
        caps.take(place, is_open)
    _explore(found, num_explored, is_open, caps, np.random.default_rng(wish.seed))
    return found


def _explore(found: Order, count: int, is_open: Mask, caps: Caps, generator: np.random.Generator) -> None:
    """Add up to ``count`` of the open candidates, each at a drawn place of the answer."""
    for place in generator.permutation(np.flatnonzero(is_open)).tolist():
        if len(found.explored) == count:
            return
        if is_open[place]:
            caps.take(place, is_open)
            found.explored.add(place)
            found.places.insert(int(generator.integers(min(1, len(found.places)), len(found.places) + 1)), place)
