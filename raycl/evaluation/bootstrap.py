"""How sure a mean over users is: the Poisson bootstrap, whose draws are a function of user and seed alone.

Each resample weighs each user by a Poisson variable of mean 1 in place of drawing users with replacement, which comes
to the same for many users and lets every part of the users be resampled where it lies (Chamandy et al., "Estimating
Uncertainty for Massive Data Streams", Google 2012). The same users get the same weights in every run and model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raycl.data.hashing import mix
from raycl.evaluation.metrics import Floats

Hashes = npt.NDArray[np.uint64]

METHOD = "Poisson bootstrap over users, percentiles 2.5 and 97.5"
_LEVELS = (2.5, 97.5)
_BITS = 16


def _poisson_of_bits() -> npt.NDArray[np.float32]:
    """The Poisson variable of mean 1 at each of 2**16 even steps of its distribution."""
    reached = np.cumsum([math.exp(-1.0) / math.factorial(count) for count in range(12)])
    return np.searchsorted(reached, (np.arange(1 << _BITS) + 0.5) / (1 << _BITS)).astype(np.float32)


_OF_BITS = _poisson_of_bits()


def weights(users: Hashes, num_resamples: int, seed: int) -> npt.NDArray[np.float32]:
    """Weights (num_resamples, users) of users with these hashes, a Poisson variable of mean 1 each."""
    per_hash = 64 // _BITS
    rounds = mix(mix(np.array([seed % 2**64], np.uint64)) ^ np.arange(-(-num_resamples // per_hash), dtype=np.uint64))
    drawn = np.ascontiguousarray(mix(users[:, None] ^ rounds)).view(np.uint16)
    return np.ascontiguousarray(_OF_BITS[drawn[:, :num_resamples]].T)


@dataclass
class Sums:
    """Of some users and each metric, what is to be divided by what: ``above`` and ``below`` (1 + resamples, metrics).

    The first row is the users as they are, and the others are resamples.
    """

    above: Floats
    below: Floats
    num_users: int

    @classmethod
    def of(cls, values: Floats, shares: Floats, drawn: npt.NDArray[np.float32]) -> Sums:
        """Sum ``values`` times ``shares`` (users, metrics), and the shares; NaN values count for nothing."""
        known = ~np.isnan(values)
        parts = np.where(known, values, 0.0) * shares, np.where(known, shares, 0.0)
        above, below = (np.vstack([part.sum(0)[None], drawn @ part]) for part in parts)
        return cls(above, below, len(values))

    def add(self, other: Sums) -> None:
        """Add the sums of other users."""
        self.above, self.below = self.above + other.above, self.below + other.below
        self.num_users += other.num_users

    def estimates(self) -> tuple[Floats, Floats, Floats]:
        """The mean of each metric, (metrics,), and the ends of its interval; NaN where there is nothing to divide by.

        A resample in which no user of a metric is left says nothing of it.
        """
        ratios = np.divide(self.above, self.below, out=np.full(self.above.shape, np.nan), where=self.below > 0)
        low, high = (np.full(ratios.shape[1], np.nan) for _ in _LEVELS)
        for metric, drawn in enumerate(ratios[1:].T):
            if len(known := drawn[~np.isnan(drawn)]):
                low[metric], high[metric] = np.percentile(known, _LEVELS)
        return ratios[0], low, high
