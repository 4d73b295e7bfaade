"""The job in raycl, on an embedded Ray; with a fourth argument ``kernel``, its tasks in this process, without Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.pairs import job
from raycl import config_file, environment, journey
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.storage.versions import Record


def start(cores: int) -> job.Engine:
    """The engine: Ray with its workers warm, or nothing but this process."""
    environment.prepare()
    from raycl import ray_runtime
    from raycl.data import ray_pairs  # noqa: F401  # loaded by now, as the modules of the other engines are

    if sys.argv[4:] == ["kernel"]:
        ray_runtime.connect = lambda _: None  # type: ignore[assignment]
        ray_runtime.map_tasks = _one_by_one
    else:
        from raycl.config import RayConfig

        ray_runtime.connect(RayConfig(num_cpus=cores))
        ray_runtime.map_tasks("warm", lambda number: {"number": number}, 4 * cores)
    return run


def run(log: Path, output: Path, cores: int) -> None:
    """Do the job."""
    config = config_of(log, output / "workspace")
    version = journey.pairs(config).version
    (output / "sequences").symlink_to(Path(version.store.uri) / "sequences")
    items = Pairs.of(version).vocabulary()
    counts = pa.table({"item": items["row"], "count": items["train_count"]})
    pq.write_table(counts.filter(pa.compute.greater(counts["count"], 0)), output / "counts.parquet")


def config_of(log: Path, workspace: Path) -> Config:
    """The config of the job."""
    return config_file.check(
        {
            "workspace": str(workspace),
            "logs": [{"uri": f"{log}/events", "columns": {"event": "event_type"}}],
            "event_weights": dict(job.WEIGHTS),
            "items": {"uri": f"{log}/items"},
        }
    )


def _one_by_one(
    name: str,
    task: Callable[[int], Record],
    num_tasks: int,
    finished: Callable[[int, Record], None] | None = None,
    *,
    num_gpus: float = 0.0,
) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(4) as pool:
        records, heard = [], []
        for number in range(num_tasks):
            records.append(dict(task(number)))
            if finished is not None:
                heard.append(pool.submit(finished, number, records[-1]))
        for told in heard:
            told.result()
        return records


if __name__ == "__main__":
    job.main(start)
