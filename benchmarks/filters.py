"""What a filter costs: an answer among a share of the items beside one among all, the same items found as by a sort.

``python -m benchmarks.filters --items 200000`` prints a line of JSON a share.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import faiss
import numpy as np
import typer

from raycl.config import IndexConfig
from raycl.index import build, plan
from raycl.index.search import Depth, ShardedIndex
from raycl.index.selective import SelectiveIndex

_DIM, _K, _LISTS_PROBED, _EF, _TARGET = 64, 100, 16, 200, 0.95
_NUM_COMPARED = 20


@dataclass(frozen=True)
class Cost:
    """Medians of one query's milliseconds; ``recall`` against a sort of what the filter keeps."""

    kind: str
    items: int
    share: float
    all_items_ms: float
    among_ms: float
    ratio: float
    recall: float


def measure(num_items: int, kind: str, shares: Sequence[float], rounds: int, seed: int = 0) -> list[Cost]:
    """The cost in one shard of an index of this kind, without vectors to re-rank by, by one thread."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(500, _DIM))
    vectors = centres[generator.integers(0, 500, num_items)] + 0.7 * generator.normal(size=(num_items, _DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = vectors[generator.integers(0, num_items, rounds)]
    chosen = plan.choose(IndexConfig.model_validate({"kind": kind, "rerank": "never"}), num_items, _DIM, _TARGET)
    shard = build.train(chosen, vectors[: chosen.sample_size or 1], seed)
    build.add(shard, vectors, np.arange(num_items))
    depth = Depth(num_items, _LISTS_PROBED, 1.0, _EF if kind == "hnsw" else 0)
    index = SelectiveIndex(ShardedIndex([shard], [depth]), num_items)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        found = []
        for share in shares:
            among = index.selection(generator.random(num_items) < share)
            whole = _median_ms(lambda query: index.search(query, _K), queries)
            some = _median_ms(lambda query, among=among: index.search(query, _K, among), queries)
            hits = 0
            for query in queries[:_NUM_COMPARED]:
                best = among.rows[np.argsort(-(vectors[among.rows] @ query), kind="stable")[:_K]]
                hits += np.isin(best, index.search(query[None], _K, among)[0]).sum() / max(len(best), 1)
            found.append(
                Cost(
                    kind,
                    num_items,
                    share,
                    whole,
                    some,
                    round(some / whole, 3),
                    round(hits / min(rounds, _NUM_COMPARED), 4),
                )
            )
        return found
    finally:
        faiss.omp_set_num_threads(threads)


def _median_ms(ask: Callable[..., object], queries: np.ndarray) -> float:
    spent = []
    for query in queries:
        started = time.perf_counter()
        ask(query[None])
        spent.append(1000 * (time.perf_counter() - started))
    return round(float(np.median(spent)), 4)


def main(items: Annotated[int, typer.Option(help="Size of the catalogue.")] = 200_000, rounds: int = 200) -> None:
    """Print what filters of several shares cost in an index of each kind."""
    for kind in ("flat", "hnsw", "sq8", "ivf_flat", "ivf_sq8", "ivf_pq"):
        for cost in measure(items, kind, (0.001, 0.01, 0.05, 0.3, 0.9), rounds):
            typer.echo(json.dumps(asdict(cost)))


if __name__ == "__main__":
    typer.run(main)
