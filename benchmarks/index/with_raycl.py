"""The job with raycl's own tasks, on an embedded Ray: FOLDER KIND OUTPUT TASKS.

``spread`` stands for the embedding tasks, which leave each shard's vectors together; it is measured apart. Its seconds
and those of Ray's start are not in ``seconds``, since the others find their vectors made.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import threadpoolctl

from benchmarks import measure
from benchmarks.index import job as bench
from benchmarks.index.job import Ids, Vectors
from raycl import environment
from raycl.config import Config, RayConfig
from raycl.data.hashing import bucket_of
from raycl.index import build, build_tasks, release, vectors
from raycl.index.merging import together
from raycl.index.plan import Plan
from raycl.index.search import ShardedIndex
from raycl.index.work import Job, as_table, prints_file, vectors_file
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Workspace

_SHARDS_PER_TASK = 2
_QUIET_S = 0.2
"""CPU seconds that all processes take in a second without work."""


@dataclass(frozen=True)
class Given(Job):
    """A job whose vectors are in a file and not made by towers."""

    rows: int = 0

    @property
    def num_items(self) -> int:
        """All rows."""
        return self.rows

    @property
    def num_rows(self) -> int:
        """All rows."""
        return self.rows

    @property
    def retired(self) -> npt.NDArray[np.bool_]:
        """None is."""
        return np.zeros(self.rows, dtype=np.bool_)

    @property
    def dim(self) -> int:
        """Of the benchmark's vectors."""
        return bench.DIM


def main() -> None:
    """Spread, train, build, search; print one line of JSON."""
    folder, kind, output, num_tasks = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    environment.prepare()
    from raycl import ray_runtime

    rows = len(np.load(folder / "vectors.npy", mmap_mode="r"))
    plan = bench.plan_of(kind, rows)
    config = Config.model_validate(
        {
            "workspace": str(output),
            "logs": [{"uri": "none"}],
            "seed": bench.SEED,
            "index": {"kind": kind, "num_shards": _SHARDS_PER_TASK * num_tasks, "use_gpu": "never"},
        }
    )
    draft = Workspace(Store(str(output))).draft("releases", "0" * 64)
    nothing: Any = None
    job = Given(draft, nothing, nothing, nothing, config, rows)
    ray_runtime.connect(RayConfig(num_cpus=num_tasks))
    ray_runtime.map_tasks("warm", _warm, 4 * num_tasks)
    _wait_until_quiet()
    moments = [time.perf_counter()]
    ray_runtime.map_tasks("spread", lambda block: _spread(job, folder, block), job.num_blocks)
    moments.append(time.perf_counter())
    ray_runtime.call("train", lambda: build_tasks.train(job, plan))
    moments.append(time.perf_counter())
    shards = ray_runtime.map_tasks("build", lambda shard: _build(job, plan, shard), job.num_shards)
    moments.append(time.perf_counter())
    spread_s, train_s, add_s = np.diff(moments).tolist()
    store = draft.store
    parts = (store.read_with(release.shard_file(shard), build.read) for shard in range(job.num_shards))
    index = ShardedIndex(together(parts, job.num_shards), ())

    def search(queries: Vectors, effort: int) -> Ids:
        return index.probe(queries, bench.K, effort)[0]

    with threadpoolctl.threadpool_limits(1):  # matrix products too
        curve = bench.searched(folder, kind, search)
    said = {
        "seconds": train_s + add_s,
        "phases": {"spread": spread_s, "train": train_s, "add and write": add_s},
        "task_peak_bytes": max(record["peak_bytes"] for record in shards),
        "curve": curve,
    }
    sys.stdout.write(json.dumps(said) + "\n")


def _spread(job: Job, folder: Path, block: int) -> dict[str, Any]:
    """What an embedding task leaves."""
    first = block * job.config.index.items_per_block
    made = np.array(np.load(folder / "vectors.npy", mmap_mode="r")[first : first + job.config.index.items_per_block])
    rows, store, num_shards = np.arange(first, first + len(made)), job.draft.store, job.num_shards
    shards = bucket_of(pa.array(rows), num_shards)
    tables.write_buckets(store, vectors_file(block), as_table(rows, made), shards, num_shards)
    prints = vectors.fingerprints(made)
    parts = (prints % np.uint64(num_shards)).astype(np.int64)
    tables.write_buckets(store, prints_file(block), pa.table({"print": prints}), parts, num_shards)
    return {}


def _warm(number: int) -> dict[str, Any]:
    """The imports that the first task of a worker would wait for."""
    return {"number": number, "kind": build_tasks.__name__, "loaded": bool(Plan)}


def _wait_until_quiet() -> None:
    """Until Ray's own processes have started: for some seconds more they take the cores that are measured."""
    root, used_s = psutil.Process(), 0.0
    while (now_s := measure.cpu_s(root)) - used_s > _QUIET_S:
        used_s = now_s
        time.sleep(1.0)


def _build(job: Job, plan: Plan, shard: int) -> dict[str, Any]:
    """The task, and by how much it raised the memory of its process at the most (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts again from here
    before = _status("VmRSS")
    record = build_tasks.build_shard(job, plan, shard)
    return record | {"peak_bytes": _status("VmHWM") - before}


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
