"""USERS ITEMS DIM K CORES [kernel]: the evaluation's own top-k, in Ray tasks or, as the kernel, in one process."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from benchmarks.evaluate import job
from raycl import environment
from raycl.evaluation import topk

_TASKS_PER_CORE = 4


def main() -> None:
    """Answer all users."""
    size, cores = job.Size.from_arguments(), int(sys.argv[5])
    if "kernel" in sys.argv[6:]:
        torch.set_num_threads(cores)
        users, items = size.vectors()
        began = time.perf_counter()
        job.say(began, [_answer(users, items, size.k, block) for block in size.blocks()])
    else:
        _on_ray(size, cores)


def _answer(users: torch.Tensor, items: torch.Tensor, k: int, block: slice) -> dict[str, int]:
    nothing = torch.zeros(0, dtype=torch.int64)
    met = topk.Cells.of(nothing, nothing)
    score = topk.vectors(users[block], items)
    rows, scores, _ = topk.best(score, block.stop - block.start, len(items), k, met)
    return job.checksum(block.start, rows, scores)


def _on_ray(size: job.Size, cores: int) -> None:
    environment.prepare()
    import ray

    from raycl import ray_runtime
    from raycl.config import RayConfig

    ray_runtime.connect(RayConfig(num_cpus=cores))
    users, items = size.vectors()
    blocks = list(size.blocks())
    num_tasks = min(len(blocks), _TASKS_PER_CORE * cores)
    ray_runtime.map_tasks("warm_up", lambda number: {}, cores)
    began = time.perf_counter()
    shared: Any = ray.put((users.numpy(), items.numpy()))

    def answer(number: int) -> dict[str, list[dict[str, int]]]:
        mine, catalogue = map(topk.without_copy, ray.get(shared))
        return {"parts": [_answer(mine, catalogue, size.k, block) for block in blocks[number::num_tasks]]}

    records = ray_runtime.map_tasks("answer", answer, num_tasks)
    job.say(began, [part for record in records for part in record["parts"]])


if __name__ == "__main__":
    main()
