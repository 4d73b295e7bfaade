"""The service as an engineer writes it by hand: FastAPI, the user tower and FAISS in one process. WORKSPACE PORT KIND.

KIND is ``faiss``, the shards of the release, or ``qdrant``, its local mode over the same vectors, which is exact.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serve.job import MAX_HISTORY
from raycl.index import release
from raycl.index.search import listed
from raycl.model.inputs import FeatureRows
from raycl.storage import pointer
from raycl.storage.store import Store

Find = Callable[[Any, int], tuple[list[int], list[float]]]
"""A user's vector (1, dim) and how many, to rows and scores, best first."""


class Query(BaseModel):
    history: list[int]
    k: int = 10


class Item(BaseModel):
    item_id: int
    score: float
    title: str


class Answer(BaseModel):
    release: str
    items: list[Item]


def application(loaded: release.Release, find: Find) -> FastAPI:
    """The one route."""
    app = FastAPI()
    tower = loaded.user_tower
    ids = loaded.catalogue["item"].to_pylist()
    titles = loaded.catalogue["title"].to_pylist()
    row_of = {one: row for row, one in enumerate(ids)}
    none = FeatureRows((), torch.zeros((1, 0)))

    @app.post("/v1/retrieve")
    async def retrieve(query: Query) -> Answer:
        rows = [row_of[one] for one in query.history if one in row_of]
        state = torch.full((1, MAX_HISTORY), -1, dtype=torch.int64)
        newest = rows[::-1][:MAX_HISTORY]
        state[0, : len(newest)] = torch.tensor(newest, dtype=torch.int64)
        with torch.inference_mode():
            vector = tower(state, none, None, none).numpy()
        met = set(rows)
        found, scores = find(vector, query.k + len(met))
        items = [
            Item(item_id=ids[row], score=score, title=titles[row])
            for row, score in zip(found, scores, strict=True)
            if row >= 0 and row not in met
        ]
        return Answer(release=loaded.name, items=items[: query.k])

    return app


def in_faiss(loaded: release.Release) -> Find:
    """One index over all shards, which FAISS searches in turn and merges."""
    index: Any = loaded.index.shards[0]
    for shard in loaded.index.shards[1:]:
        index.merge_from(shard, 0)
    listed(index).nprobe = loaded.index.depths[0].nprobe

    def find(vector: Any, k: int) -> tuple[list[int], list[float]]:
        scores, rows = index.search(vector, k)
        return rows[0].tolist(), scores[0].tolist()

    return find


def in_qdrant(loaded: release.Release) -> Find:
    """Qdrant's local mode, in this process."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    shards = [_of_shard(shard) for shard in loaded.index.shards]
    rows = np.concatenate([rows for rows, _ in shards])
    vectors = np.concatenate([vectors for _, vectors in shards])
    size = models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)
    client.create_collection("items", vectors_config=size)
    client.upload_collection("items", vectors=vectors, ids=rows.tolist())

    def find(vector: Any, k: int) -> tuple[list[int], list[float]]:
        points = client.query_points("items", query=vector[0], limit=k).points
        return [int(point.id) for point in points], [point.score for point in points]

    return find


def _of_shard(shard: Any) -> tuple[Any, Any]:
    lists = shard.invlists
    parts = [
        (
            faiss.rev_swig_ptr(lists.get_ids(one), lists.list_size(one)).copy(),
            faiss.rev_swig_ptr(lists.get_codes(one), lists.list_size(one) * lists.code_size).view(np.float32).copy(),
        )
        for one in range(lists.nlist)
        if lists.list_size(one)
    ]
    rows = np.concatenate([rows for rows, _ in parts])
    return rows, np.concatenate([codes for _, codes in parts]).reshape(len(rows), shard.d)


def main() -> None:
    """Serve until it is ended."""
    folder, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    store = Store(folder)
    published = pointer.current(store)
    assert published is not None
    loaded = release.load(store.under(f"releases/{published.release}"))
    find = {"faiss": in_faiss, "qdrant": in_qdrant}[kind](loaded)
    uvicorn.run(application(loaded, find), host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
