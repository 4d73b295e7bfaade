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

from raycl.index import build
from raycl.index.search import Depth, ShardedIndex
from raycl.index.selective import SelectiveIndex

_DIM, _K, _LISTS_PROBED = 64, 100, 16


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


def measure(num_items: int, num_lists: int, shares: Sequence[float], rounds: int, seed: int = 0) -> list[Cost]:
    """The cost in one shard of ``num_lists`` inverted lists, 0 for a flat one, by one thread."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(500, _DIM))
    vectors = centres[generator.integers(0, 500, num_items)] + 0.7 * generator.normal(size=(num_items, _DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = vectors[generator.integers(0, num_items, rounds)]
    centroids = build.train_quantizer(vectors[: 64 * num_lists], num_lists, seed, use_gpu=False) if num_lists else None
    shard = build.build_shard(vectors, np.arange(num_items), centroids)
    index = SelectiveIndex(ShardedIndex.from_bytes([shard], [Depth(num_items, _LISTS_PROBED, 1.0)]), num_items)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        found = []
        for share in shares:
            among = index.selection(generator.random(num_items) < share)
            whole = _median_ms(lambda query: index.search(query, _K), queries)
            some = _median_ms(lambda query, among=among: index.search(query, _K, among), queries)
            hits = 0
            for query in queries[:20]:
                best = among.rows[np.argsort(-(vectors[among.rows] @ query), kind="stable")[:_K]]
                hits += np.isin(best, index.search(query[None], _K, among)[0]).sum() / max(len(best), 1)
            kind = "ivf_flat" if num_lists else "flat"
            found.append(Cost(kind, num_items, share, whole, some, round(some / whole, 3), round(hits / 20, 4)))
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
    """Print what filters of several shares cost in a flat index and in inverted lists."""
    for num_lists in (0, 4 * int(items**0.5)):
        for cost in measure(items, num_lists, (0.001, 0.01, 0.05, 0.3, 0.9), rounds):
            typer.echo(json.dumps(asdict(cost)))


if __name__ == "__main__":
    typer.run(main)
