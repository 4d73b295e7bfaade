"""What a step tells the user tower beside history and user: the ages of events, and what the request carries.

A share of both is hidden, drawn over the global batch and so the same for any number of processes. Changed views of a
history have neither: their events are not when they were, and what two views share would be told and not learned.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raycl.data.reader import Batch
from raycl.model import inputs, masking
from raycl.model.inputs import FeatureRows
from raycl.training import draws, exchange
from raycl.training.job import Job
from raycl.training.prefetch import sent


def ages(job: Job, batch: Batch, number: int, num_runs: int, device: torch.device) -> Tensor | None:
    """Seconds (num_runs * rows, max_history), NaN where they are not known; the first run is the batch.

    None where the batch has none.
    """
    if batch.history_age_s is None:
        return None
    found = np.full((num_runs * len(batch), batch.history.shape[1]), np.nan, dtype=np.float32)
    found[: len(batch)] = batch.history_age_s
    found[: len(batch)][_hidden(draws.timeless, job, batch, number)] = np.nan
    return sent(found, device)


def context(job: Job, batch: Batch, number: int, num_runs: int, device: torch.device) -> FeatureRows | None:
    """Features of the requests (num_runs * rows,), unknown in all runs but the first; None where towers read none."""
    encoders = job.stream.encoders
    if encoders is None or not encoders.features:
        return None
    rows = inputs.from_table(pa.table(dict(batch.context)), encoders, len(batch))
    rows = rows.take(torch.arange(len(batch)).repeat(num_runs))
    hidden = np.ones(len(rows), dtype=np.bool_)
    hidden[: len(batch)] = _hidden(draws.without_context, job, batch, number)
    flags = torch.from_numpy(hidden)[:, None].expand(-1, masking.num_features(rows))
    return masking.hide(rows, flags).to(device)


def _hidden(draw: Callable[[int, int, int, float], draws.Flags], job: Job, batch: Batch, number: int) -> draws.Flags:
    """What is drawn for this process's rows of the global batch."""
    drawn = draw(job.seed, number, len(batch) * exchange.world_size(), job.spec.model.request_dropout)
    return drawn[exchange.own_rows(len(batch))]
