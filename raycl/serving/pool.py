"""The nearest items that an answer is chosen from, and the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from raycl.index.selection import Rows
from raycl.serving import rerank
from raycl.serving.api import Diversity
from raycl.serving.catalogue import Catalogue
from raycl.serving.checked import Checked, Index, Scores, Vectors

_PER_ITEM = 5
"""Candidates for each item of an answer, where the query does not say."""
_MORE = 4


@dataclass(frozen=True)
class Pool:
    """Rows that may come (n,), best first, and their scores."""

    rows: Rows
    scores: Scores


@dataclass(frozen=True)
class Chosen:
    """An answer's rows in their order, their scores, and the places that chance filled."""

    rows: Rows
    scores: Scores
    explored: set[int] = field(default_factory=set)
    by_score: bool = False
    """Whether some of it is by score alone where a method was asked for: time ran out, or vectors are not there."""


def num_candidates(checked: Checked) -> int:
    """How many items a query's answer is chosen from, at first."""
    wish = checked.query.diversity
    if wish is None:
        return checked.query.k
    return max(checked.query.k, wish.candidates or _PER_ITEM * checked.query.k)


def nearest(
    checked: Sequence[Checked],
    vectors: Sequence[Vectors | None],
    sizes: Sequence[int],
    index: Index,
    catalogue: Catalogue,
) -> list[Pool]:
    """Of each query as many of the nearest items as ``sizes`` says, or all that may come; without a vector the popular.

    Queries of one filter are searched together.
    """
    pools: dict[int, Pool] = {
        place: _popular(one, size, catalogue)
        for place, (one, vector, size) in enumerate(zip(checked, vectors, sizes, strict=True))
        if vector is None
    }
    by_filter: dict[int, list[int]] = {}
    for place, one in enumerate(checked):
        if place not in pools:
            by_filter.setdefault(id(one.among), []).append(place)
    for places in by_filter.values():
        among = checked[places[0]].among
        wanted = np.array([min(sizes[place] + checked[place].num_left_out, among.count) for place in places])
        asked = np.stack([vector for place in places if (vector := vectors[place]) is not None])
        ids, scores = index.search(asked, wanted, None if among is catalogue.all else among)
        for place, found, of_found in zip(places, ids, scores, strict=True):
            met = {-1, *checked[place].left_out.tolist()}  # faster than NumPy's sorts of so few
            kept = [at for at, row in enumerate(found.tolist()) if row not in met][: sizes[place]]
            pools[place] = Pool(found[kept], of_found[kept])
    return [pools[place] for place in range(len(checked))]


def _popular(checked: Checked, size: int, catalogue: Catalogue) -> Pool:
    """Looked for from the most popular on, in ever larger steps, so that a large catalogue is seldom gone through."""
    found: list[Rows] = []
    start, step, count = 0, 4 * (size + len(checked.left_out)), 0
    while count < size and start < len(catalogue.by_popularity):
        rows = catalogue.by_popularity[start : start + step]
        found.append(rows[checked.among.kept[rows] & ~np.isin(rows, checked.left_out)])
        start, step, count = start + step, 4 * step, count + len(found[-1])
    rows = np.concatenate([*found, catalogue.by_popularity[:0]])[:size]
    return Pool(rows, (catalogue.counts[rows] / max(catalogue.most, 1)).astype(np.float32))


def choose(
    checked: Checked,
    vector: Vectors | None,
    pool: Pool,
    index: Index,
    catalogue: Catalogue,
    go_on: Callable[[], bool],
) -> Chosen:
    """The answer from its pool; where caps leave less than ``k``, from a larger one, up to all that may come."""
    k, wish = checked.query.k, checked.query.diversity
    if wish is None:
        return Chosen(pool.rows[:k], pool.scores[:k])
    while True:
        found = _ordered(pool, k, wish, index, catalogue, go_on)
        if len(found.rows) == k:
            return found
        (larger,) = nearest([checked], [vector], [_MORE * len(pool.rows)], index, catalogue)
        if len(larger.rows) == len(pool.rows):
            return found
        pool = larger


def _ordered(
    pool: Pool, k: int, wish: Diversity, index: Index, catalogue: Catalogue, go_on: Callable[[], bool]
) -> Chosen:
    caps = rerank.Caps([(catalogue.columns.groups(name, pool.rows), most) for name, most in wish.max_per.items()])
    counts = catalogue.counts[pool.rows]
    scores = rerank.discounted(pool.scores, counts, wish.popularity_discount, catalogue.most)
    vectors = index.vectors(pool.rows) if wish.method else None
    some_unknown = vectors is not None and not np.isfinite(vectors).all()  # nobody knows what such items are like
    method = None if some_unknown else wish.method
    how = rerank.Wish(method, wish.strength, wish.explore, wish.seed)
    directions = _directions(vectors) if vectors is not None and method else None
    found = rerank.order(scores, directions, k, how, caps, go_on)
    explored = {place for place, one in enumerate(found.places) if one in found.explored}
    return Chosen(pool.rows[found.places], pool.scores[found.places], explored, found.out_of_time or some_unknown)


def _directions(vectors: Vectors) -> Vectors:
    """Vectors at unit length, which those that an index makes of its codes only nearly have."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
