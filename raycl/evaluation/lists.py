"""What ranked lists are like, whoever's targets they hold: how novel, popular, varied, calibrated, and how spread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from raycl.evaluation.metrics import Flags, Floats, Ints, at

Vectors = npt.NDArray[np.float32]

QUALITIES = ("novelty", "popularity", "diversity", "calibration")
SMOOTHING = 0.01
"""Share of the history's own distribution in that of the list (Steck, RecSys 2018, section 3)."""


@dataclass(frozen=True)
class Catalogue:
    """What the qualities of lists are measured by; all have a row an item that may be retrieved."""

    train_counts: Ints
    """(num_items,)"""
    vectors: Vectors
    """(num_items, dim) of length 1"""
    shares: sparse.csr_array | None = None
    """(num_items, values): how much of the item each value of the calibrated column is; rows sum to 1, or to 0 for an
    item of which nothing is known."""


def qualities(catalogue: Catalogue, ranked: Ints, ks: Iterable[int], history: sparse.csr_array) -> dict[str, Floats]:
    """Each of ``QUALITIES`` at each k, (users,), NaN for a list that has none; calibration where there are shares.

    ``ranked`` (users, places) are item rows, the best first, -1 where the list ends; ``history`` (users, num_items)
    counts the events that the user is known by.

    - novelty: mean of -log2 of the item's share of training events, with one event added to each item
      (self-information; Zhou et al., PNAS 2010);
    - popularity: mean number of training events of the listed items (Yin et al., VLDB 2012);
    - diversity: 1 less the mean cosine of two listed items (Ziegler et al., WWW 2005); NaN for fewer than two;
    - calibration: the Kullback-Leibler divergence of the list's distribution over the column from the history's, less
      is better (Steck, RecSys 2018); NaN where either has none.
    """
    found: dict[str, Floats] = {}
    counts = catalogue.train_counts
    surprise = -np.log2((counts + 1.0) / (counts.sum() + len(counts)))
    wanted = None if catalogue.shares is None else _distribution(history @ catalogue.shares)
    for k in ks:
        inside = ranked[:, :k]
        listed = inside >= 0
        rows, sizes = np.where(listed, inside, 0), listed.sum(1)
        found[at("novelty", k)] = _ratio(np.where(listed, surprise[rows], 0.0).sum(1), sizes)
        found[at("popularity", k)] = _ratio(np.where(listed, counts[rows], 0).sum(1), sizes)
        found[at("diversity", k)] = 1.0 - _mean_cosine(catalogue.vectors, rows, listed)
        if wanted is not None and catalogue.shares is not None:
            held = _distribution(_lists(inside, listed, len(counts)) @ catalogue.shares)
            found[at("calibration", k)] = _divergence(wanted, held)
    return found


def coverage(exposed: Ints) -> float:
    """Share of the catalogue that any list holds."""
    return float((exposed > 0).mean()) if len(exposed) else float("nan")


def gini(exposed: Ints) -> float:
    """How unevenly the places of all lists fall to the items: 0 for all alike, near 1 for few that have them all."""
    total = exposed.sum()
    if not total:
        return float("nan")
    size = len(exposed)
    ranks = np.arange(1, size + 1)
    return float(((2 * ranks - size - 1) * np.sort(exposed)).sum() / (size * total))


def _mean_cosine(vectors: Vectors, rows: Ints, listed: Flags) -> Floats:
    sums = np.zeros((len(rows), vectors.shape[1]))
    for place in range(rows.shape[1]):
        sums += vectors[rows[:, place]] * listed[:, place, None]
    sizes = listed.sum(1)
    return _ratio((sums**2).sum(1) - sizes, sizes * (sizes - 1))


def _lists(rows: Ints, listed: Flags, num_items: int) -> sparse.csr_array:
    """The lists as counts (users, num_items)."""
    owner = np.repeat(np.arange(len(rows)), listed.sum(1))
    return sparse.csr_array((np.ones(len(owner)), (owner, rows[listed])), shape=(len(rows), num_items))


def _distribution(summed: sparse.csr_array) -> Floats:
    """Rows of ``summed`` as shares, all NaN for a row of zeros."""
    dense: Floats = summed.toarray().astype(np.float64)
    return _ratio(dense, np.broadcast_to(dense.sum(1, keepdims=True), dense.shape))


def _divergence(wanted: Floats, held: Floats) -> Floats:
    mixed = (1.0 - SMOOTHING) * held + SMOOTHING * wanted
    terms = np.zeros_like(wanted)
    some = wanted > 0
    terms[some] = wanted[some] * np.log2(wanted[some] / mixed[some])
    known = ~np.isnan(wanted).any(1) & ~np.isnan(held).any(1)
    return np.where(known, terms.sum(1), np.nan)


def _ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Floats:
    """``above`` over ``below``, NaN over 0."""
    found: Floats = np.full(above.shape, np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found
