"""How deep to search: the cheapest parameters that find enough of the exact answers."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raycl.config_index import LISTED
from raycl.index.plan import Plan
from raycl.index.search import Depth

Recalls = Sequence[Sequence[float]]
"""Recall at each number of items, for each number of candidates per wanted item."""

_FACTORS = (1, 2, 4, 8, 16)
_RANDOM_READ = 4
"""What a number costs that is read from anywhere, beside one that is read in turn."""


@dataclass(frozen=True)
class Space:
    """What may be chosen between."""

    plan: Plan
    num_vectors: int
    dim: int
    most_effort: int
    """All inverted lists, or all items of the largest shard of a graph; 0 where there is nothing to choose."""
    code_bytes: int
    """Of one vector in the index."""

    @property
    def least_effort(self) -> int:
        """Where to begin."""
        return 16 if self.plan.kind == "hnsw" else 1

    @property
    def factors(self) -> tuple[int, ...]:
        """Candidates per wanted item; one alone without stored vectors."""
        return _FACTORS if self.plan.rerank else (1,)

    def cost(self, effort: int, k: int, factor: int) -> float:
        """About the bytes that one query reads."""
        if self.plan.kind in LISTED:
            scanned = self.num_vectors * effort / self.plan.num_lists * self.code_bytes
            read = self.plan.num_lists * self.dim * 4 + scanned
        elif self.plan.kind == "hnsw":
            read = effort * self.code_bytes * _RANDOM_READ
        else:
            read = self.num_vectors * self.code_bytes
        return read + (k * factor * self.dim * 2 * _RANDOM_READ if self.plan.rerank else 0)

    def cost_of(self, depth: Depth) -> float:
        """``cost`` of these parameters."""
        return self.cost(depth.effort, depth.k, max(depth.candidates // depth.k, 1))

    def below(self, cost: float, k: int, factor: int) -> int:
        """The most effort that costs less, or 0."""
        efforts = range(1, self.most_effort + 1)
        return bisect.bisect_left(efforts, cost, key=lambda effort: self.cost(effort, k, factor))

    def depth(self, k: int, effort: int, factor: int, recall: float) -> Depth:
        """These parameters as a release keeps them."""
        ef, candidates = effort if self.plan.kind == "hnsw" else 0, k * factor if self.plan.rerank else 0
        return Depth(k, 1 if ef else effort, recall, ef, candidates)


def space(plan: Plan, num_vectors: int, dim: int, largest_shard: int) -> Space:
    """What may be chosen between for an index of this plan."""
    most = {"hnsw": largest_shard}.get(plan.kind, plan.num_lists)
    codes = {"sq8": dim, "ivf_sq8": dim, "ivf_pq": plan.pq_bytes}.get(plan.kind, 4 * dim)
    return Space(plan, num_vectors, dim, most, codes)


def tune(measure: Callable[[int], Recalls], ks: Sequence[int], space: Space, target: float) -> tuple[Depth, ...]:
    """For each of the ascending ``ks`` the cheapest parameters whose recall reaches ``target``, else the best ones.

    ``measure`` tells the recalls by an effort; it is asked once an effort, of twice as many until the target holds and
    then in between, to within a sixteenth. More items never get less effort.
    """
    known: dict[int, Recalls] = {}

    def recalls(effort: int) -> Recalls:
        if effort not in known:
            known[effort] = measure(effort)
        return known[effort]

    found: list[Depth] = []
    start = space.least_effort
    for place, k in enumerate(ks):
        found.append(_cheapest(functools.partial(_at, recalls, place), k, space, start, target))
        start = found[-1].effort
    return tuple(found)


def _cheapest(recall: Callable[[int], Sequence[float]], k: int, space: Space, start: int, target: float) -> Depth:
    """The cheapest parameters for ``k`` items, with an effort from ``start`` on; where none are enough, the best."""
    best: Depth | None = None
    tried: list[Depth] = []
    # The most candidates first: they need the least effort, and what costs more than they do is not looked at.
    for number, factor in reversed(list(enumerate(space.factors))):
        most = space.most_effort if best is None else space.below(space.cost_of(best), k, factor)
        if best is not None and most < start:
            continue
        effort = _least(functools.partial(_enough, recall, number, target), start, most)
        tried.append(space.depth(k, effort, factor, recall(effort)[number]))
        if tried[-1].recall >= target and (best is None or space.cost_of(tried[-1]) < space.cost_of(best)):
            best = tried[-1]
    return best or max(tried, key=lambda depth: depth.recall)


def _at(recalls: Callable[[int], Recalls], place: int, effort: int) -> Sequence[float]:
    return recalls(effort)[place]


def _enough(recall: Callable[[int], Sequence[float]], number: int, target: float, effort: int) -> bool:
    return recall(effort)[number] >= target


def _least(enough: Callable[[int], bool], start: int, most: int) -> int:
    """About the least effort from ``start`` on that is enough, at the most ``most``."""
    effort, too_little = start, start - 1
    while not enough(effort):
        if effort >= most:
            return effort
        too_little, effort = effort, min(2 * effort, most)
    while effort - too_little > 1 + too_little // 16:
        middle = (too_little + effort) // 2
        if enough(middle):
            effort = middle
        else:
            too_little = middle
    return effort
