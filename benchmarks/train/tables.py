"""The time of a step by the rows of the tables, as a program: ROWS CORES. Items are drawn by popularity."""

from __future__ import annotations

import json
import math
import sys
import time

import numpy as np
import torch

from benchmarks.train import bare, case
from benchmarks.train.with_bare import tensors_of, towers_of
from raycl.config import ModelConfig, PairRules, TrainConfig
from raycl.config_loss import LossConfig
from raycl.data.reader import Batch, PairStream
from raycl.model.inputs import FeatureRows
from raycl.model.spec import FeatureSizes, TowerSpec
from raycl.storage.store import Store
from raycl.training import loop, step
from raycl.training.job import Inputs, Job

_BATCH, _STEPS, _ROUNDS = 2_048, 20, 5


def main() -> None:
    """Print the best mean milliseconds of a step, the rows it reads, and whether its loss is that of bare towers."""
    rows, cores = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(cores)
    one = step.learner(job := _job(rows), loop.build(job), torch.device("cpu"))
    one.towers.train()
    batches = [_batch(rows, job.spec.max_history, number) for number in range(_STEPS)]
    with torch.no_grad():
        bare_loss = bare.loss_of(
            towers_of(one.towers, sparse=True), tensors_of(job, batches[0], 0), job.loss.temperature
        )
    equal = math.isclose(float(step.take(one, batches[0], 0, 0.0)), float(bare_loss), rel_tol=1e-5)
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for number, batch in enumerate(batches):
            step.take(one, batch, number, 1e-3)
        best = min(best, (time.perf_counter() - began) / _STEPS)
    read = [len(np.unique(batch.history)) + len(np.unique(batch.item)) for batch in batches]
    sys.stdout.write(json.dumps({"ms": best * 1e3, "rows_read": float(np.mean(read)), "equal": equal}) + "\n")


def _job(rows: int) -> Job:
    rules, none = PairRules(), FeatureSizes((), 0)
    counts = torch.ones(rows, dtype=torch.int64)
    return Job(
        TowerSpec(rows, rules.max_history, none, none, ModelConfig(dim=case.DIM, hidden=(case.HIDDEN,))),
        TrainConfig(global_batch_size=_BATCH, table_optimizer="adagrad"),
        LossConfig(),
        PairStream(Store("unused"), (), rules, _BATCH, 1, 0),
        Inputs(FeatureRows((), torch.zeros(rows, 0)), FeatureRows((), torch.zeros(1, 0)), counts, counts),
        Store("unused"),
        0,
    )


def _batch(rows: int, max_history: int, seed: int) -> Batch:
    """A hundredth of the items is drawn as often as the next fifth."""
    drawn = (rows * np.random.default_rng(seed).random((_BATCH, max_history + 1)) ** 3).astype(np.int32)
    ones = np.ones(_BATCH, dtype=np.float32)
    return Batch(drawn[:, 1:], drawn[:, 0], ones, np.full(_BATCH, -1, np.int32), np.zeros(_BATCH, np.int64))


if __name__ == "__main__":
    main()
