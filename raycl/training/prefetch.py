"""The next batches, ready before a step asks for them, and their way to the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from raycl.data.ahead import ahead
from raycl.data.reader import Batch
from raycl.training import exchange
from raycl.training.job import Job

_BATCHES = 2
"""How many are read and cut ahead: one hides the time that a batch takes, the second a pause of the reader."""


@contextlib.contextmanager
def batches(job: Job, epoch: int, first_step: int) -> Iterator[Iterator[Batch]]:
    """This process's parts of an epoch's batches from ``first_step`` on, made ahead by a thread that ends with this."""
    stream = iter(job.stream.epoch(epoch, exchange.rank(), exchange.world_size(), first_step))
    with contextlib.closing(ahead(stream, _BATCHES)) as made:
        yield made


def sent(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """``array`` on the device; to a GPU it goes from memory that does not page, while the host goes on."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
