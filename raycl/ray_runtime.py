"""Where Ray comes from: the cluster that a job runs in, or an embedded one of this machine."""

from __future__ import annotations

import logging
import os

import ray

from raycl.config import RayConfig

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
    return int(ray.cluster_resources().get("GPU", 0))
