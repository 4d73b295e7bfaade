"""The job with FAISS alone, in one process: FOLDER KIND OUTPUT THREADS."""

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
    """Build, write, read, search; print one line of JSON."""
    folder, kind, output, threads = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    faiss.omp_set_num_threads(threads)
    output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    vectors = np.load(folder / "vectors.npy")
    plan = job.plan_of(kind, len(vectors))
    index: Any = faiss.index_factory(job.DIM, plan.factory, faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction = plan.build_depth
    if plan.num_lists:
        faiss.extract_index_ivf(index).cp.seed = job.SEED + 1  # raycl's, so that both draw the same
    if not index.is_trained:
        index.train(vectors[job.sample_rows(plan, len(vectors))])
    trained = time.perf_counter()
    index.add(vectors)
    added = time.perf_counter()
    faiss.write_index(index, str(output / "index.faiss"))
    ended = time.perf_counter()
    phases = {"train": trained - began, "add": added - trained, "write": ended - added}

    def search(queries: Vectors, effort: int) -> Ids:
        if plan.num_lists:
            faiss.extract_index_ivf(index).nprobe = effort
        elif kind == "hnsw":
            index.hnsw.efSearch = effort
        return np.asarray(index.search(queries, job.K)[1])

    said = {"seconds": ended - began, "phases": phases, "curve": job.searched(folder, kind, search)}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
