"""The training loop of one process; alone or one of many, it takes its part of every global batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raycl.errors import RayclError
from raycl.model.towers import TwoTower
from raycl.training import checkpoint, exchange, step
from raycl.training.job import Job
from raycl.training.schedule import learning_rate
from raycl.training.step import Learner

Report = Callable[[Mapping[str, Any]], None]
"""Called by rank 0 after some steps and at the end of each epoch, with epoch, step, steps, loss and pairs/s."""

_REPORT_EVERY_S = 0.5


def build(job: Job) -> TwoTower:
    """The untrained towers, the same in every process and on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed % 2**63)
        towers = TwoTower(job.spec)
    towers.user.known.copy_(job.inputs.train_counts > 0)
    towers.item.known.copy_(job.inputs.train_targets > 0)
    if job.inputs.id_row is not None:
        towers.item.id_row.copy_(job.inputs.id_row)
        if not job.spec.model.share_items:
            towers.user.id_row.copy_(job.inputs.id_row)
    return towers


def fit(job: Job, device: torch.device, report: Report) -> tuple[TwoTower, checkpoint.Progress]:
    """Train from the newest checkpoint to the last epoch; every process ends with the same towers.

    Raises RayclError where a loss is not finite; the last checkpoint stays.
    """
    learner = step.learner(job, build(job), device)
    progress = checkpoint.load_newest(job.store, learner.trained, learner.optimizers)
    while progress.epoch < job.train.epochs:
        _run_epoch(learner, progress, report)
    learner.towers.eval()
    return learner.towers, progress


def _run_epoch(learner: Learner, progress: checkpoint.Progress, report: Report) -> None:
    job, rank = learner.job, exchange.rank()
    steps = job.stream.steps
    learner.towers.train()
    meter = _Meter(report if rank == 0 else None, progress, steps, job.train.global_batch_size)
    for batch in job.stream.epoch(progress.epoch, rank, exchange.world_size(), progress.epoch_step):
        rate = learning_rate(progress.step, steps * job.train.epochs, job.train.learning_rate, job.train.warmup_share)
        value = step.take(learner, batch, progress.step, rate)
        progress.step += 1
        progress.epoch_step += 1
        meter.add(exchange.mean(value))
        if progress.epoch_step % job.train.checkpoint_steps == 0 and progress.epoch_step < steps:
            meter.settle()
            if rank == 0:
                checkpoint.save(job.store, learner.trained, learner.optimizers, progress)
    meter.settle()
    progress.losses.append(progress.loss_sum / max(progress.loss_steps, 1))
    progress.epoch, progress.epoch_step = progress.epoch + 1, 0
    progress.loss_sum, progress.loss_steps = 0.0, 0
    if rank == 0:
        checkpoint.save(job.store, learner.trained, learner.optimizers, progress)
        meter.report_epoch()


class _Meter:
    """Adds up losses without waiting for the device, and reports now and then."""

    def __init__(self, report: Report | None, progress: checkpoint.Progress, steps: int, pairs_per_step: int) -> None:
        self._report, self._progress = report, progress
        self._steps, self._pairs_per_step = steps, pairs_per_step
        self._pending: list[Tensor] = []
        self._started = self._reported = time.monotonic()
        self._first_step = progress.epoch_step

    def add(self, value: Tensor) -> None:
        self._pending.append(value)
        if time.monotonic() - self._reported > _REPORT_EVERY_S:
            self.settle()
            self._say(self._progress.loss_sum / self._progress.loss_steps, self._progress.epoch, done=False)

    def settle(self) -> None:
        """Fetch what is pending; RayclError where it is not finite."""
        if not self._pending:
            return
        total = torch.stack(self._pending).double().sum().item()
        if not np.isfinite(total):
            raise RayclError(
                f"the loss became {total} before step {self._progress.step}: lower train.learning_rate or"
                f" raise loss.temperature; the last checkpoint is intact"
            )
        self._progress.loss_sum += total
        self._progress.loss_steps += len(self._pending)
        self._pending.clear()

    def report_epoch(self) -> None:
        self._say(self._progress.losses[-1], self._progress.epoch - 1, done=True)

    def _say(self, loss: float, epoch: int, *, done: bool) -> None:
        self._reported = time.monotonic()
        if self._report is None:
            return
        finished = self._steps if done else self._progress.epoch_step
        pairs = (finished - self._first_step) * self._pairs_per_step
        rate = pairs / max(self._reported - self._started, 1e-9)
        self._report(
            {"epoch": epoch, "step": finished, "steps": self._steps, "loss": loss, "pairs_per_s": rate, "done": done}
        )
