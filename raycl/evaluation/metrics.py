"""Accuracy of ranked lists against held-out items, one value a user."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

ACCURACY = ("recall", "precision", "hit_rate", "ndcg", "mrr", "map")


def at(name: str, k: int) -> str:
    """What a metric of the first ``k`` of a list is called."""
    return f"{name}_at_{k}"


def accuracy(hits: Flags, num_targets: Ints, ks: Iterable[int]) -> dict[str, Floats]:
    """Each of ``ACCURACY`` at each k, (users,), for users with one target or more; all are between 0 and 1.

    ``hits`` (users, places) marks the places of targets, the best place first; there are ``num_targets`` (users,) of
    them in all. Of the first k places:

    - recall is hits over targets, and precision hits over k, whether or not the catalogue has k items;
    - hit rate is 1 with a hit;
    - NDCG has gains of 1 and discounts of 1 / log2(place + 1), over the gain of the ideal list, which holds
      ``min(targets, k)`` (Järvelin and Kekäläinen, TOIS 2002);
    - MRR is 1 over the place of the first hit, 0 without one;
    - MAP is the sum of the precisions at the places of hits, over ``min(targets, k)``, so that the ideal list has 1.
    """
    found: dict[str, Floats] = {}
    places = np.arange(1, hits.shape[1] + 1)
    discounts = 1.0 / np.log2(places + 1.0)
    precisions = hits.cumsum(1) / places
    for k in ks:
        inside = hits[:, :k]
        num_hits = inside.sum(1)
        most = np.minimum(num_targets, k)
        gains = 1.0 / np.log2(np.arange(1, int(most.max(initial=1)) + 1) + 1.0)
        values = {
            "recall": num_hits / num_targets,
            "precision": num_hits / k,
            "hit_rate": (num_hits > 0).astype(np.float64),
            "ndcg": (inside * discounts[:k]).sum(1) / np.cumsum(gains)[most - 1],
            "mrr": np.where(num_hits > 0, 1.0 / (inside.argmax(1) + 1.0) if inside.shape[1] else 0.0, 0.0),
            "map": (precisions[:, :k] * inside).sum(1) / most,
        }
        found |= {at(name, k): values[name] for name in ACCURACY}
    return found


def auc(user: Ints, higher: Ints, same: Ints, num_others: Ints) -> Floats:
    """Of each user the share of pairs of a target and another candidate in which the target scores higher, (users,).

    Equal scores count half. Of each target its ``user``, and how many of the other candidates score ``higher`` and the
    ``same``; ``num_others`` (users,) are the candidates that are no targets. NaN for a user without a target or without
    another candidate.
    """
    lost = np.bincount(user, weights=higher + 0.5 * same, minlength=len(num_others))
    pairs = np.bincount(user, minlength=len(num_others)) * num_others
    found: Floats = np.full(len(pairs), np.nan)
    np.divide(lost, pairs, out=found, where=pairs > 0)
    return 1.0 - found
