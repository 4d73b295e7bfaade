"""From the steps of a run to its events: which steps are told of, and when what is told is fetched from the device."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from raycl.tracking.events import Sink
from raycl.training.checkpoint import Progress
from raycl.training.curve import Point, plain
from raycl.training.exchange import Later
from raycl.training.job import Job

_MOST_POINTS, _MOST_WHOLE = 2_000, 200
"""Steps of a run that are told of, and of these how many are measured as a whole, which takes a millisecond or two."""


class Track:
    """Tells of evenly spaced steps, and of every validation; which they are does not depend on where a run resumed.

    What a step measured stays on the device until ``settle``, as its loss does.
    """

    def __init__(self, job: Job, progress: Progress, sink: Sink) -> None:
        """Begin, or go on after ``progress``."""
        self._job, self._sink = job, sink
        total = job.stream.steps * job.train.epochs
        self._every = max(1, -(-total // _MOST_POINTS))
        self._every_whole = self._every * max(1, -(-total // (self._every * _MOST_WHOLE)))
        self._pending: list[tuple[dict[str, Any], Later, dict[str, Tensor]]] = []
        self._timed = time.monotonic(), progress.step
        sink.put(_event("start", progress.step))

    def wants(self, step: int) -> bool:
        """Whether to tell of the step that makes it so many."""
        return step % self._every == 0

    def wants_whole(self, step: int) -> bool:
        """Whether to measure all there is of that step."""
        return step % self._every_whole == 0

    def step(self, progress: Progress, rate: float, loss: Later, measured: dict[str, Tensor]) -> None:
        """The step that ``progress`` counts last was made at this learning rate."""
        now, (before, first) = time.monotonic(), self._timed
        self._timed = now, progress.step
        pairs = (progress.step - first) * self._job.train.global_batch_size
        about = {"epoch": progress.epoch, "learning_rate": rate, "pairs_per_s": pairs / max(now - before, 1e-9)}
        if not self._job.loss.learn_temperature:
            about["temperature"] = self._job.loss.temperature
        self._pending.append((_event("step", progress.step) | about, loss, measured))

    def validation(self, point: Point) -> None:
        """A validation was made."""
        self._sink.put(_event("validation", point.step) | plain(point, self._job.train.validation.k))

    def pause(self, seconds: float) -> None:
        """So long something else went on, which is no part of the pairs/s."""
        self._timed = self._timed[0] + seconds, self._timed[1]

    def settle(self) -> None:
        """Fetch what is pending, in one transfer, and hand it on."""
        pending = [(event, {"loss": loss(), **measured}) for event, loss, measured in self._pending]
        self._pending = []
        if not pending:
            return
        tensors = [tensor.detach().float() for _, measured in pending for tensor in measured.values()]
        fetched = iter(torch.stack(tensors).tolist())
        for event, measured in pending:
            found = {name: next(fetched) for name in measured}
            self._sink.put(event | {name: value if math.isfinite(value) else None for name, value in found.items()})

    def flush(self) -> None:
        """Hand on what is pending; it is on storage before the checkpoint that is saved next."""
        self.settle()
        self._sink.flush()


def _event(kind: str, step: int) -> dict[str, Any]:
    return {"kind": kind, "step": step, "time": round(time.time(), 3)}
