"""Where Ray comes from: the cluster that a job runs in, or an embedded one of this machine."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.data

from raycl import errors
from raycl.config import RayConfig
from raycl.errors import RayclError

log = logging.getLogger(__name__)

_SAY_EVERY_S = 5.0


def connect(config: RayConfig) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names (``ray job submit`` sets it), else start an embedded one.

    Does nothing when this process is connected already. An embedded one has the settings of ``environment.prepare``,
    if that ran before Ray was imported.
    """
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=True, logging_level=logging.WARNING)
        return
    ray.init(
        address="local",
        num_cpus=config.num_cpus,
        object_store_memory=config.object_store_bytes,
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=True,
    )


def num_gpus() -> int:
    """GPUs in the connected cluster."""
    return int(_resources().get("GPU", 0))


def num_cpus() -> float:
    """CPUs in the connected cluster."""
    return float(_resources().get("CPU", 1))


def joined_cluster() -> bool:
    """Whether this process joined a cluster instead of starting an embedded Ray."""
    return bool(os.environ.get("RAY_ADDRESS"))


def map_tasks(name: str, task: Callable[[int], dict[str, Any]], num_tasks: int) -> list[dict[str, Any]]:
    """Run ``task`` once for each number below ``num_tasks``, and return the records in that order.

    Records cross as JSON, since Arrow would give every row the keys of all. On a terminal Ray Data draws its bars;
    elsewhere a line now and then says how far it is. A RayclError of a task is raised here as it was there.
    """

    def call(row: dict[str, Any]) -> dict[str, Any]:
        refused = ""
        try:
            record = task(int(row["id"]))
        except RayclError as error:  # Ray would hand over its own error, without this one's type
            record, refused = {"message": str(error)}, type(error).__name__
        return {"task": row["id"], "record": json.dumps(record), "refused": refused}

    call.__name__ = name
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_rich_progress_bars, context.use_ray_tqdm = True, False
    records: dict[int, dict[str, Any]] = {}
    said = time.monotonic()
    for row in ray.data.range(num_tasks, override_num_blocks=num_tasks).map(call).iter_rows():
        records[int(row["task"])] = json.loads(row["record"])
        if row["refused"]:
            raise getattr(errors, row["refused"], RayclError)(records[int(row["task"])]["message"])
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            log.info("%s: %d of %d tasks done", name, len(records), num_tasks)
    return [records[number] for number in range(num_tasks)]


def _resources() -> dict[str, float]:
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found
