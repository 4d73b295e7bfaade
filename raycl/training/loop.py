"""The training loop of one process; alone or one of many, it takes its part of every global batch."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raycl.config import LossConfig, TrainConfig
from raycl.data.hashing import mix
from raycl.data.reader import Batch, PairStream
from raycl.errors import RayclError
from raycl.model.inputs import FeatureRows
from raycl.model.losses import in_batch_softmax
from raycl.model.spec import TowerSpec
from raycl.model.towers import TwoTower
from raycl.storage.store import Store
from raycl.training import checkpoint, exchange
from raycl.training.schedule import learning_rate

Report = Callable[[Mapping[str, Any]], None]
"""Called by rank 0 after some steps and at the end of each epoch, with epoch, step, steps, loss and pairs/s."""

_REPORT_EVERY_S = 0.5


@dataclass(frozen=True)
class Inputs:
    """What training reads besides pairs: features of every item and user, and how often each item comes."""

    items: FeatureRows
    users: FeatureRows
    """Its last row stands for users who are not in the user table."""
    train_counts: Tensor
    """Events of each item in training (num_items,): where there are none, no history has taught the user tower it."""
    train_targets: Tensor
    """Training pairs whose target is the item (num_items,): where there are none, the item tower has not learned it."""

    def to(self, device: torch.device) -> Inputs:
        """The same on ``device``."""
        return Inputs(
            self.items.to(device), self.users.to(device), self.train_counts.to(device), self.train_targets.to(device)
        )

    @functools.cached_property
    def log_q(self) -> Tensor:
        """Log of each item's share of training pairs (num_items,): how often a batch draws it."""
        return (self.train_targets.clamp(min=1) / self.train_targets.sum().clamp(min=1)).float().log()


@dataclass(frozen=True)
class Job:
    """One training run, the same in every process."""

    spec: TowerSpec
    train: TrainConfig
    loss: LossConfig
    stream: PairStream
    inputs: Inputs
    store: Store
    """Where checkpoints go."""
    seed: int


def build(job: Job) -> TwoTower:
    """The untrained towers, the same in every process and on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed % 2**63)
        towers = TwoTower(job.spec)
    towers.user.known.copy_(job.inputs.train_counts > 0)
    towers.item.known.copy_(job.inputs.train_targets > 0)
    return towers


def fit(job: Job, device: torch.device, report: Report) -> tuple[TwoTower, checkpoint.Progress]:
    """Train from the newest checkpoint to the last epoch; every process ends with the same towers.

    Raises RayclError where a loss is not finite; the last checkpoint stays.
    """
    towers = build(job).to(device)
    optimizer = torch.optim.AdamW(
        towers.parameters(),
        lr=job.train.learning_rate,
        weight_decay=job.train.weight_decay,
        fused=device.type == "cuda",
    )
    progress = checkpoint.load_newest(job.store, towers, optimizer)
    inputs = job.inputs.to(device)
    model: nn.Module = DistributedDataParallel(towers) if exchange.world_size() > 1 else towers
    while progress.epoch < job.train.epochs:
        _run_epoch(job, inputs, model, towers, optimizer, progress, device, report)
    towers.eval()
    return towers, progress


def _run_epoch(
    job: Job,
    inputs: Inputs,
    model: nn.Module,
    towers: TwoTower,
    optimizer: torch.optim.Optimizer,
    progress: checkpoint.Progress,
    device: torch.device,
    report: Report,
) -> None:
    steps, rank = job.stream.steps, exchange.rank()
    towers.train()
    meter = _Meter(report if rank == 0 else None, progress, steps, job.train.global_batch_size)
    for batch in job.stream.epoch(progress.epoch, rank, exchange.world_size(), progress.epoch_step):
        rate = learning_rate(progress.step, steps * job.train.epochs, job.train.learning_rate, job.train.warmup_share)
        value = step(job, inputs, model, optimizer, batch, progress.step, rate, device)
        progress.step += 1
        progress.epoch_step += 1
        meter.add(exchange.mean(value))
        if progress.epoch_step % job.train.checkpoint_steps == 0 and progress.epoch_step < steps:
            meter.settle()
            if rank == 0:
                checkpoint.save(job.store, towers, optimizer, progress)
    meter.settle()
    progress.losses.append(progress.loss_sum / max(progress.loss_steps, 1))
    progress.epoch, progress.epoch_step = progress.epoch + 1, 0
    progress.loss_sum, progress.loss_steps = 0.0, 0
    if rank == 0:
        checkpoint.save(job.store, towers, optimizer, progress)
        meter.report_epoch()


def step(
    job: Job,
    inputs: Inputs,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    number: int,
    rate: float,
    device: torch.device,
) -> Tensor:
    """One optimizer step on this process's part of a global batch; returns its loss, detached.

    Every process's items are negatives for every process's users, and the result is that of one process with the
    whole batch: the loss is a mean over rows, and DDP averages the gradients of equal parts.
    """
    torch.manual_seed(((job.seed * 1_000_003 + number) * 4_096 + exchange.rank()) % 2**63)
    items = torch.from_numpy(batch.item.astype(np.int64)).to(device)
    history = torch.from_numpy(batch.history.astype(np.int64)).to(device)
    user_rows = torch.from_numpy(batch.user_row.astype(np.int64)).to(device)
    hidden = torch.from_numpy(_hidden(batch, number, job.spec.model.id_dropout)).to(device)
    autocast = (
        torch.autocast(device.type, torch.bfloat16) if job.train.precision == "bfloat16" else contextlib.nullcontext()
    )
    with autocast:
        users, vectors = model(
            history, inputs.users.take(user_rows), items, inputs.items.take(items), hidden, catalogue=inputs.items
        )
    all_items = exchange.gather(items)
    own = torch.arange(len(batch), device=device) + exchange.rank() * len(batch)
    value = in_batch_softmax.loss(
        users,
        exchange.gather(vectors),
        own,
        all_items,
        inputs.log_q[all_items] if job.loss.log_q == "static" else None,
        torch.from_numpy(batch.weight).to(device),
        job.loss.temperature,
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), job.train.gradient_clip)
    optimizer.step()
    return value.detach()


def _hidden(batch: Batch, number: int, share: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which items hide their own embedding in this step: a function of item and step, so of no process's state."""
    drawn = mix(batch.item.astype(np.uint64) ^ mix(np.full(len(batch), number, dtype=np.uint64)))
    return np.asarray(drawn < np.uint64(share * (2**64 - 2**11)))


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
