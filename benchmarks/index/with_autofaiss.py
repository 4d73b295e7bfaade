"""The job with autofaiss, which chooses its own index: FOLDER KIND OUTPUT THREADS."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.index import job
from benchmarks.index.job import Ids, Vectors


def main() -> None:
    """Build and search; print one line of JSON."""
    from autofaiss import build_index

    folder, kind, output, threads = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    built: Any = build_index(
        embeddings=np.load(folder / "vectors.npy"),
        index_path=str(output / "index.faiss"),
        index_infos_path=str(output / "infos.json"),
        metric_type="ip",
        nb_cores=threads,
        max_index_memory_usage="8G",
        current_memory_available="12G",
        verbose=30,
    )
    seconds = time.perf_counter() - began
    index: Any = built[0]
    parameters = faiss.ParameterSpace()

    def search(queries: Vectors, effort: int) -> Ids:
        if hasattr(index, "hnsw"):
            index.hnsw.efSearch = effort
        elif hasattr(index, "nprobe") or isinstance(index, faiss.IndexPreTransform):
            parameters.set_index_parameter(index, "nprobe", effort)
        return np.asarray(index.search(queries, job.K)[1])

    said = {"seconds": seconds, "phases": {"build": seconds}, "curve": job.searched(folder, kind, search)}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
