"""The training loop of one process; alone or one of many, it takes its part of every global batch."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from raycl.errors import RayclError
from raycl.model.towers import TwoTower
from raycl.tracking.background import Sinks
from raycl.tracking.events import Sink
from raycl.tracking.lines import Lines
from raycl.training import checkpoint, exchange, prefetch, sharding, start, step
from raycl.training.curve import Point, plain
from raycl.training.exchange import Later
from raycl.training.job import Job
from raycl.training.schedule import learning_rate
from raycl.training.step import Learner
from raycl.training.stop import Agreement, Stopped
from raycl.training.track import Track
from raycl.training.watch import Watch
from raycl.training.writer import Writer

log = logging.getLogger(__name__)

Report = Callable[[Mapping[str, Any]], None]
"""Called by rank 0 after some steps and at the end of each epoch, with epoch, step, steps, loss, pairs/s, and the
newest validation as ``curve.plain`` tells it, or None."""

_REPORT_EVERY_S = 0.5


def build(job: Job) -> TwoTower:
    """The towers before the first step, the same in every process and on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed % 2**63)
        towers = TwoTower(job.spec)
    if job.start is not None:
        start.fill(towers, job.start)
    towers.user.known.copy_(job.inputs.train_counts > 0)
    towers.item.known.copy_(job.inputs.train_targets > 0)
    if job.inputs.id_row is not None:
        towers.item.id_row.copy_(job.inputs.id_row)
        if not job.spec.model.share_items:
            towers.user.id_row.copy_(job.inputs.id_row)
    return towers


def fit(
    job: Job,
    device: torch.device,
    report: Report,
    asked: threading.Event | None = None,
    sinks: Sequence[Sink] = (),
) -> tuple[TwoTower, checkpoint.Progress]:
    """Train from the newest checkpoint to the last epoch or an early stop; every process ends with the same towers.

    Those are of the best validation or of the last step, as ``watch.kept`` says. Where tables are spread over the
    processes, the first ends with all of them, in the host's memory. Raises InputError before the first step where the
    config needs validations and nobody is held out, and RayclError where a loss or a weight is not finite; the last
    checkpoint stays. Once ``asked`` is set in any process, all end after the same step, and raise Stopped when its
    checkpoint is complete. The first process's ``sinks`` hear of steps and validations, beside ``tracking.lines`` under
    ``job.store``.
    """
    learner = step.learner(job, build(job), device)
    watch = Watch(learner)
    progress = checkpoint.load_newest(job.store, learner.trained, learner.optimizers)
    checkpoint.require_order(progress, job.stream.order)
    agreement = Agreement(asked or threading.Event())
    with Writer(job.store) as writer, _track(job, progress, sinks) as track:
        while progress.epoch < job.train.epochs and not watch.reason_to_stop(progress):
            _run_epoch(learner, progress, watch, writer, agreement, report, track)
    if exchange.rank() == 0 and (reason := watch.reason_to_stop(progress)):
        log.info("training ended after %d of %d epochs: %s", progress.epoch, job.train.epochs, reason)
    watch.restore(progress)
    sharding.put_together(learner.towers)
    learner.towers.eval()
    return learner.towers, progress


def _run_epoch(
    learner: Learner,
    progress: checkpoint.Progress,
    watch: Watch,
    writer: Writer,
    agreement: Agreement,
    report: Report,
    track: Track | None,
) -> None:
    """The rest of an epoch, up to an early stop."""
    learner.towers.train()
    meter = _Meter(report if exchange.rank() == 0 else None, progress, learner, track)
    if not _ends_early(watch, progress, meter):  # a run that was asked to end did so before it validated
        _take_steps(learner, progress, watch, writer, agreement, meter)
    if watch.validates:  # which may take longer than a signal waits
        _save(learner, progress, writer, meter)
    _look(watch, progress, meter)
    finished = progress.epoch_step
    progress.losses.append(progress.loss_sum / max(progress.loss_steps, 1))
    progress.epoch, progress.epoch_step = progress.epoch + 1, 0
    progress.loss_sum, progress.loss_steps = 0.0, 0
    _save(learner, progress, writer, meter)
    meter.report_epoch(finished)


def _take_steps(
    learner: Learner,
    progress: checkpoint.Progress,
    watch: Watch,
    writer: Writer,
    agreement: Agreement,
    meter: _Meter,
) -> None:
    train, steps = learner.job.train, learner.job.stream.steps
    with prefetch.batches(learner.job, progress.epoch, progress.epoch_step) as batches:
        for batch in batches:
            rate = learning_rate(train, progress.step, steps * train.epochs, progress.curve)
            meter.begin()
            value = step.take(learner, batch, progress.step, rate)
            progress.step += 1
            progress.epoch_step += 1
            meter.add(agreement.mean(value), rate)
            last = progress.epoch_step == steps
            if agreement.reached(at_once=last or watch.is_due(progress)):  # before a validation, which may be long
                _save(learner, progress, writer, meter)
                writer.wait()
                raise Stopped
            if last or _ends_early(watch, progress, meter):
                return
            if progress.epoch_step % train.checkpoint_steps == 0:
                _save(learner, progress, writer, meter)


def _save(learner: Learner, progress: checkpoint.Progress, writer: Writer, meter: _Meter) -> None:
    """A checkpoint of this step, once its losses and weights are known to be finite."""
    meter.settle()
    _require_finite(learner, progress)
    meter.flush()
    writer.save(learner.trained, learner.optimizers, progress)


def _ends_early(watch: Watch, progress: checkpoint.Progress, meter: _Meter) -> bool:
    """Whether the validation that is due within the epoch, if one is, ends training."""
    if not watch.is_due(progress):
        return False
    _look(watch, progress, meter)
    return watch.reason_to_stop(progress) is not None


def _look(watch: Watch, progress: checkpoint.Progress, meter: _Meter) -> None:
    """Validate, after a look at the losses, and outside of the time that steps take."""
    meter.settle()
    with meter.paused():
        found = len(progress.curve)
        watch.look(progress)
    if progress.curve[found:]:
        meter.tell(progress.curve[-1])


def _require_finite(learner: Learner, progress: checkpoint.Progress) -> None:
    """RayclError where a weight is not, in any process: only the next step's loss shows it, after a checkpoint."""
    with torch.no_grad():
        sums = torch.stack([parameter.sum() for parameter in learner.trained.parameters()])
    if exchange.total((~sums.isfinite()).sum()):
        raise RayclError(
            f"a weight became infinite or NaN before step {progress.step}: lower train.learning_rate or"
            f" raise loss.temperature; the last checkpoint is intact"
        )


@contextlib.contextmanager
def _track(job: Job, progress: checkpoint.Progress, sinks: Sequence[Sink]) -> Iterator[Track | None]:
    """The curves of the run, in the first process alone."""
    if exchange.rank() > 0:
        yield None
        return
    every, finished = Sinks([Lines(job.store), *sinks]), False
    try:
        yield Track(job, progress, every)
        finished = True
    finally:
        every.close(finished=finished)


class _Meter:
    """Adds up losses without waiting for the device, and reports now and then."""

    def __init__(
        self, report: Report | None, progress: checkpoint.Progress, learner: Learner, track: Track | None
    ) -> None:
        self._report, self._progress, self._job = report, progress, learner.job
        self._probe, self._track = learner.probe, track
        self._pending: list[Later] = []
        self._started = self._reported = time.monotonic()
        self._first_step = progress.epoch_step

    def begin(self) -> None:
        """A step begins."""
        number = self._progress.step + 1
        if self._track is not None and self._track.wants(number):
            self._probe.begin(whole=self._track.wants_whole(number))

    def add(self, value: Later, rate: float) -> None:
        """The step's loss, which ``progress`` counts already, and its learning rate."""
        self._pending.append(value)
        if self._track is not None and self._track.wants(self._progress.step):
            self._track.step(self._progress, rate, value, self._probe.take())
        if time.monotonic() - self._reported > _REPORT_EVERY_S:
            self.settle()
            now = self._progress
            self._say(now.loss_sum / now.loss_steps, now.epoch, now.epoch_step, done=False)

    def settle(self) -> None:
        """Fetch what is pending; RayclError where it is not finite."""
        if not self._pending:
            return
        total = torch.stack([value() for value in self._pending]).double().sum().item()
        if not np.isfinite(total):
            raise RayclError(
                f"the loss became {total} before step {self._progress.step}: lower train.learning_rate or"
                f" raise loss.temperature; the last checkpoint is intact"
            )
        self._progress.loss_sum += total
        self._progress.loss_steps += len(self._pending)
        self._pending.clear()
        if self._track is not None:
            self._track.settle()

    def flush(self) -> None:
        """Bring the curves to storage."""
        if self._track is not None:
            self._track.flush()

    def tell(self, point: Point) -> None:
        """A validation was made."""
        if self._track is not None:
            self._track.validation(point)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What goes on meanwhile is no part of the pairs/s."""
        began = time.monotonic()
        yield
        lasted = time.monotonic() - began
        self._started += lasted
        if self._track is not None:
            self._track.pause(lasted)

    def report_epoch(self, steps: int) -> None:
        """The epoch is over after so many of its steps."""
        self._say(self._progress.losses[-1], self._progress.epoch - 1, steps, done=True)

    def _say(self, loss: float, epoch: int, finished: int, *, done: bool) -> None:
        self._reported = time.monotonic()
        if self._report is None:
            return
        pairs = (finished - self._first_step) * self._job.train.global_batch_size
        curve, k = self._progress.curve, self._job.train.validation.k
        rate = pairs / max(self._reported - self._started, 1e-9)
        self._report(
            {
                "epoch": epoch,
                "step": finished,
                "steps": self._job.stream.steps,
                "loss": loss,
                "pairs_per_s": rate,
                "validation": plain(curve[-1], k) if curve else None,
                "done": done,
            }
        )
