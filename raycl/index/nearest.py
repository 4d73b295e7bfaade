"""The nearest items of each query, best first: answers put in order and merged, the exact ones, and how many agree."""

from __future__ import annotations

from collections.abc import Iterable

import faiss
import numpy as np
import numpy.typing as npt

from raycl.index import build

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float32]

_FEW = 1_000


def merge(ids: Ids, scores: Scores, k: int) -> tuple[Ids, Scores]:
    """Merge shard answers of shape (num_shards, num_queries, shard_k) into (num_queries, k), best first.

    An id of -1 is FAISS's "no more neighbours": it never wins, and fills up with a score of -inf where there are fewer
    than ``k``. Ties go to the smaller id, so the answer does not depend on which shard replied first.
    """
    num_queries = ids.shape[1]
    flat_ids = ids.transpose(1, 0, 2).reshape(num_queries, -1)
    flat_scores = scores.transpose(1, 0, 2).reshape(num_queries, -1)
    flat_scores = np.where(flat_ids < 0, -np.inf, flat_scores).astype(np.float32)
    best = order(flat_ids, flat_scores, k)
    merged_ids = np.take_along_axis(flat_ids, best, axis=1)
    merged_scores = np.take_along_axis(flat_scores, best, axis=1)
    short = k - merged_ids.shape[1]
    if short > 0:
        merged_ids = np.pad(merged_ids, ((0, 0), (0, short)), constant_values=-1)
        merged_scores = np.pad(merged_scores, ((0, 0), (0, short)), constant_values=-np.inf)
    return merged_ids, merged_scores


def merge_in_turn(answers: Iterable[tuple[Ids, Scores]], k: int) -> tuple[Ids, Scores]:
    """``merge`` of answers (num_queries, any) of which two are in memory at a time; there is at least one."""
    rest = iter(answers)
    ids, scores = next(rest)
    best = merge(ids[None], scores[None], k)
    for ids, scores in rest:
        both = np.concatenate([best[0], ids], axis=1), np.concatenate([best[1], scores], axis=1)
        best = merge(both[0][None], both[1][None], k)
    return best


def put_in_order(ids: Ids, scores: Scores) -> tuple[Ids, Scores]:
    """What ``merge`` makes of one shard's answer (num_queries, k), in place.

    FAISS has sorted it by score, -1 last, so all that may be left to do is among equal scores.
    """
    if (ids[:, -1] < 0).any():
        scores[ids < 0] = -np.inf
    wrong = (scores[:, 1:] >= scores[:, :-1]) & (ids[:, 1:] < ids[:, :-1])
    if wrong.any():
        rows = np.flatnonzero(wrong.any(axis=1))
        ids[rows] = np.take_along_axis(ids[rows], np.lexsort((ids[rows], -scores[rows])), axis=1)
    return ids, scores


def order(ids: Ids, scores: Scores, k: int) -> npt.NDArray[np.intp]:
    """Places of the best ``k`` in each row, best first, ties to the smaller id; an id of -1 comes last.

    One sort by score, and another by both only of the rows in which scores are equal; of few numbers one by both.
    """
    keys = -np.where(ids < 0, -np.inf, scores)
    if keys.size <= _FEW:
        return np.lexsort((ids, keys), axis=1)[:, :k]
    places = np.argsort(keys, axis=1)[:, : k + 1]
    best = np.take_along_axis(keys, places, axis=1)
    tied = ((best[:, 1:] == best[:, :-1]) & np.isfinite(best[:, 1:])).any(axis=1)
    places = places[:, :k]
    if tied.any():
        places[tied] = np.lexsort((ids[tied], keys[tied]), axis=1)[:, :k]
    return places


def score_all(queries: Vectors, vectors: Vectors, metric: str) -> Scores:
    """The score (num_queries, n) of each of ``vectors`` for each query, of which more is better."""
    products = queries @ vectors.T
    if metric != "l2":
        return np.asarray(products)
    lengths = (queries**2).sum(1)[:, None] + (vectors**2).sum(1)
    return np.asarray(-np.maximum(lengths - 2 * products, 0))


def exact(vectors: Vectors, queries: Vectors, k: int, metric: str = "inner_product") -> tuple[Ids, Scores]:
    """Rows and scores (num_queries, k) of the nearest ``vectors``: what an index is measured against.

    Best first, and -1 where there are no more.
    """
    if not len(vectors):
        return np.full((len(queries), k), -1, dtype=np.int64), np.full((len(queries), k), -np.inf, dtype=np.float32)
    scores, rows = faiss.knn(queries, vectors, min(k, len(vectors)), metric=build.METRICS[metric])
    return merge(np.asarray(rows)[None], (-scores if metric == "l2" else np.asarray(scores))[None], k)


def hits(found: Ids, truth: Ids) -> int:
    """How many of ``truth`` (num_queries, k) are in the same row of ``found`` (num_queries, any), order aside."""
    return sum(int(np.isin(truth[row], found[row]).sum()) for row in range(len(truth)))


def recall(found: Ids, truth: Ids) -> float:
    """Share of ``truth`` (num_queries, k) that is in ``found`` (num_queries, any), order aside."""
    return hits(found, truth) / max(truth.size, 1)
