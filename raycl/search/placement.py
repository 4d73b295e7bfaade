"""How many trials of a search run at a time, and what each of them takes of the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raycl.config import TrainConfig
from raycl.config_loss import LossConfig

_LEAST_CPUS = 0.5
_DRIVER_BYTES = 1.0
"""What a trial takes whose workers are processes of their own: nothing that they could lack."""


@dataclass(frozen=True)
class Room:
    """What Tune is told."""

    trials: int
    """At a time."""
    resources: Mapping[str, float]
    """Of the process of each trial."""


def of(train: TrainConfig, most: int | None, cpus: float, gpus: int, loss: LossConfig) -> Room:
    """The room for trials of ``train`` on a cluster with this many CPUs and GPUs, at most ``most`` of them.

    A trial of one worker is one process, with its threads as CPUs, or a GPU. Those of more workers hold nothing: their
    workers ask for what they take. Where negatives are mined, which tasks on Ray do, one CPU is left to these.
    """
    workers = train.num_workers.min
    use_gpu = train.use_gpu != "never" and gpus >= workers
    free = max(cpus - (1 if loss.negatives.mined is not None else 0), _LEAST_CPUS)
    fits = gpus // workers if use_gpu else int(free // (train.threads_per_worker * workers))
    trials = max(1, fits if most is None else min(fits, most))
    if train.num_workers.max > 1:
        return Room(trials, {"CPU": 0.0, "memory": _DRIVER_BYTES})
    threads = min(float(train.threads_per_worker), free / trials)
    return Room(trials, {"CPU": 0.0, "GPU": 1.0} if use_gpu else {"CPU": threads})
