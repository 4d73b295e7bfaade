"""The job that every contender does: vectors in a file to an index in files, then searches of it on one thread.

The vectors are of 64 dimensions and unit length, in clusters of many sizes, as learnt ones are; the queries are drawn
beside them. What an index is worth is its recall@100 against exact search, at so many queries a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from raycl.index.plan import Plan

DIM, NUM_QUERIES, K, SEED = 64, 1_000, 100, 0
EFFORTS = {"ivf": (1, 2, 4, 8, 16, 32, 64, 128), "hnsw": (100, 200, 400), "scan": (1,)}
_BATCH = 50
_PASSES = 3
"""Of all queries at each effort; the fastest counts."""

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def prepare(folder: Path, rows: int) -> None:
    """Leave vectors, queries and exact answers of this size, unless they are there."""
    if (folder / "truth.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(rows)
    num_centres = max(50, rows // 500)
    centres = generator.normal(size=(num_centres, DIM)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    share = 1.0 / np.sqrt(np.arange(1, num_centres + 1, dtype=np.float64))
    drawn = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, DIM))
    for start in range(0, rows, 500_000):
        drawn[start : start + 500_000] = _near(centres, share, min(500_000, rows - start), generator)
    drawn.flush()
    queries = _near(centres, share, NUM_QUERIES, generator)
    np.save(folder / "queries.npy", queries)
    _, best = faiss.knn(queries, np.asarray(drawn), K, metric=faiss.METRIC_INNER_PRODUCT)
    np.save(folder / "truth.npy", best)


def plan_of(kind: str, rows: int) -> Plan:
    """What raycl would build: the others build the same."""
    # Not at the top: autofaiss needs an older NumPy, and so an environment without raycl.
    from raycl.config import IndexConfig
    from raycl.index.plan import choose

    return choose(IndexConfig.model_validate({"kind": kind, "rerank": "never"}), rows, DIM, 0.95)


def sample_rows(plan: Plan, rows: int) -> Ids:
    """The vectors that all learn from: those that raycl draws."""
    generator = np.random.default_rng([SEED, 1])
    return np.sort(generator.choice(rows, min(plan.sample_size, rows), replace=False))


def searched(folder: Path, kind: str, search: Callable[[Vectors, int], Ids]) -> list[dict[str, float]]:
    """Recall and queries a second by effort; ``search`` (queries, effort) gives ids (num_queries, K)."""
    faiss.omp_set_num_threads(1)
    queries, best = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    curve = []
    for effort in EFFORTS["ivf" if kind.startswith("ivf") else "hnsw" if kind == "hnsw" else "scan"]:
        taken = []
        for _ in range(_PASSES):
            began, found = time.perf_counter(), []
            for start in range(0, len(queries), _BATCH):
                found.append(search(queries[start : start + _BATCH], effort))
            taken.append(time.perf_counter() - began)
        hit = [np.isin(one, other).sum() for one, other in zip(np.concatenate(found), best, strict=True)]
        curve.append({"effort": effort, "recall": float(np.sum(hit) / best.size), "qps": len(queries) / min(taken)})
    return curve


def recall_at(curve: list[dict[str, Any]], qps: float) -> float:
    """Recall at so many queries a second, between the measured points; the best one where all are faster.

    A point that another one is faster than and finds more than does not count; 0 at a speed that is never reached.
    """
    points: list[tuple[float, float]] = []
    for point in sorted(curve, key=lambda point: -point["qps"]):
        if not points or point["recall"] > points[-1][1]:
            points.append((point["qps"], point["recall"]))
    speeds, recalls = zip(*reversed(points), strict=True)
    return float(np.interp(np.log(qps), np.log(speeds), recalls, right=0.0))


def _near(centres: Vectors, share: npt.NDArray[np.floating[Any]], rows: int, generator: np.random.Generator) -> Vectors:
    chosen = generator.choice(len(centres), rows, p=share / share.sum())
    drawn = centres[chosen] + 0.09 * generator.standard_normal((rows, DIM), dtype=np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.asarray(drawn, dtype=np.float32)
