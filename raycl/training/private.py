"""Items that only one row of a batch is compared with: what its user turned down, and what was mined for its target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from raycl.config_loss import Mined
from raycl.data.reader import Batch
from raycl.training import draws, exchange
from raycl.training.job import Job

Items = npt.NDArray[np.int64]


def items(job: Job, batch: Batch, number: int) -> Items | None:
    """Of each row what its user turned down, the newest first, and what is drawn of the mined.

    (rows, some), rows of the vocabulary and -1 for none; None where no row has any. The target may be among what was
    turned down.
    """
    wanted = job.loss.negatives.num_explicit(job.stream.rules.max_negatives)
    found: list[Items] = []
    if wanted and batch.negatives is not None:
        found.append(batch.negatives[:, :wanted].astype(np.int64))
    how, pools = job.loss.negatives.mined, job.inputs.mined
    if how is not None and pools is not None:
        share = draws.mined(job.seed, number, len(batch) * exchange.world_size())[exchange.own_rows(len(batch))]
        found.append(_mined(pools[batch.item], how, batch, share))
    return np.concatenate(found, axis=1) if found else None


def _mined(pools: npt.NDArray[np.int32], how: Mined, batch: Batch, share: npt.NDArray[np.float64]) -> Items:
    """A run of each row's pool that begins at ``share`` of it and turns at the end; what the user met is none."""
    counts = (pools >= 0).sum(1)[:, None]
    steps = np.arange(how.per_pair)
    places = ((share[:, None] * counts).astype(np.int64) + steps) % np.maximum(counts, 1)
    found = np.where(steps < counts, np.take_along_axis(pools, places, 1), -1).astype(np.int64)
    met = (found[:, :, None] == batch.history[:, None, :]).any(2)
    return np.where(met, -1, found)
