"""How likely a draw is to bring each item: from counts, from a stream of batches, and over mixed samplers."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from raycl.data.hashing import mix


def static(train_targets: Tensor) -> Tensor:
    """Log of each item's share of training pairs (num_items,): how often a batch draws it; unseen ones count as one."""
    return (train_targets.clamp(min=1) / train_targets.sum().clamp(min=1)).float().log()


def mixture(log_q: Tensor, num_drawn: int, num_uniform: int, num_items: int) -> Tensor:
    """Log-probability of items in ``num_drawn`` draws by ``log_q`` and ``num_uniform`` even ones among ``num_items``.

    The same for every candidate, whichever sampler brought it: (B q(j) + B' / V) / (B + B'), Yang et al., WWW 2020,
    section 4.2.
    """
    if num_uniform == 0:
        return log_q
    even = torch.full_like(log_q, math.log(num_uniform / num_items))
    return torch.logaddexp(log_q + math.log(num_drawn), even) - math.log(num_drawn + num_uniform)


class Sketch(nn.Module):
    """Estimates each item's share of draws from the gaps between its occurrences, as the batches come.

    After Yi et al., RecSys 2019, section 3.2 and algorithm 2: hashed arrays of when an item last came and of the mean
    gap since, the largest gap of several hashes winning, since a collision can only shorten it. Gaps are counted in
    draws and not in steps, and an item that comes n times in a batch has closed n gaps, so that items which
    are in every batch are told apart too. The first ``1 / rate`` gaps of a counter are averaged evenly, so that it
    starts at the item's share so far whatever it held before; older gaps then fade by ``rate``.

    Every process is given the whole global batch, so that all hold the same state without merging it.
    """

    last: Tensor
    gap: Tensor
    occurrences: Tensor
    draws: Tensor
    multipliers: Tensor

    def __init__(self, num_items: int, width: int, num_hashes: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.log_kept = math.log1p(-rate) if rate < 1.0 else -math.inf
        self.exact = num_items <= width
        hashes, self.width = (1, num_items) if self.exact else (num_hashes, width)
        self.register_buffer("last", torch.zeros(hashes, self.width, dtype=torch.int64))
        """Draws seen when the counter's item last came."""
        self.register_buffer("gap", torch.full((hashes, self.width), math.inf, dtype=torch.float64))
        self.register_buffer("occurrences", torch.zeros(hashes, self.width, dtype=torch.int64))
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        odd = (mix(np.arange(hashes, dtype=np.uint64)) | np.uint64(1)).view(np.int64)
        self.register_buffer("multipliers", torch.from_numpy(odd), persistent=False)

    @torch.no_grad()
    def update(self, items: Tensor) -> None:
        """Count one global batch of drawn items (draws,), rows of the vocabulary."""
        self.draws += len(items)
        for hashed, places in enumerate(self._places(items)):
            # Equal places get equal values, so the order of writing does not matter; no size depends on the data.
            ordered = places.sort().values
            count = torch.searchsorted(ordered, places, right=True) - torch.searchsorted(ordered, places)
            last, gap, occurrences = self.last[hashed], self.gap[hashed], self.occurrences[hashed]
            newest = (self.draws - last[places]).double() / count
            known = occurrences[places]
            faded = -torch.expm1(count.double() * self.log_kept)
            share = torch.maximum(faded, count / (known + count).double())
            before = torch.where(known > 0, gap[places], 0.0)
            gap[places] = before + share * (newest - before)
            occurrences[places] = known + count
            last[places] = self.draws

    @torch.no_grad()
    def log_q(self, items: Tensor) -> Tensor:
        """Log of the share of draws that ``items`` are estimated to have (len(items),); -inf for what never came.

        The gap that is open since an item last came counts too, so that what stopped coming is not taken for popular.
        """
        gaps = []
        for hashed, places in enumerate(self._places(items)):
            remembered = self.occurrences[hashed][places].clamp(min=1).double().clamp(max=1 / self.rate)
            gaps.append(self.gap[hashed][places] + (self.draws - self.last[hashed][places]) / remembered)
        return -torch.stack(gaps).amax(0).log().float()

    def _places(self, items: Tensor) -> list[Tensor]:
        """The counter of each item in each of the arrays."""
        if self.exact:
            return [items]
        # The high half of a product with an odd number depends on every bit of the item (multiplicative hashing).
        return [((items + 1) * one >> 32).remainder(self.width) for one in self.multipliers]
