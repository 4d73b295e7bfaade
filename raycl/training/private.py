"""Items that only one row of a batch is compared with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from raycl.data.reader import Batch
from raycl.training.job import Job


def items(job: Job, batch: Batch) -> npt.NDArray[np.int64] | None:
    """Of each row what its user turned down, the newest first: (rows, some), -1 for none; None where no row has any."""
    wanted = job.loss.negatives.num_explicit(job.stream.rules.max_negatives)
    if not wanted or batch.negatives is None:
        return None
    return batch.negatives[:, :wanted].astype(np.int64)
