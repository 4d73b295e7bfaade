"""The weighted sum of losses that a step minimises, and the state that it keeps from step to step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from raycl.config_loss import CONTRASTING, Reconstruction
from raycl.data.features import UNKNOWN
from raycl.model import log_q
from raycl.model.bank import Bank
from raycl.model.inputs import FeatureRows
from raycl.model.losses import negatives
from raycl.model.spec import FeatureSizes
from raycl.training import draws, exchange, terms
from raycl.training.exchange import Later
from raycl.training.job import Inputs, Job
from raycl.training.passes import Passes
from raycl.training.terms import Candidates, Material, Reading

_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 0.01, 10.0


class Decoder(nn.Module):
    """Reads an item's features from its vector, each by one linear map."""

    def __init__(self, sizes: FeatureSizes, dim: int, max_tokens: int) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.bags = nn.ModuleList(nn.Linear(dim, min(size, max_tokens)) for size in sizes.bag_tokens)
        width = sizes.num_numbers + sum(sizes.vector_lengths)
        self.numbers = nn.Linear(dim, width) if width else None

    def forward(self, vectors: Tensor, features: FeatureRows) -> Reading:
        """What is read from ``vectors`` (rows, dim) beside the ``features`` of the same rows; the unknown is none."""
        # Of a feature with more tokens than are told apart, known ones turn round within 1 to max_tokens - 1.
        tokens = [(token - UNKNOWN - 1) % (self.max_tokens - 1) + 1 for token in features.tokens]
        pairs = zip(tokens, features.tokens, strict=True)
        tokens = [folded.masked_fill(token <= UNKNOWN, 0) for folded, token in pairs]
        numbers = torch.cat([features.numbers, *features.vectors], dim=1)
        read = self.numbers(vectors) if self.numbers is not None else numbers
        numbers = torch.where(numbers.isnan(), read.detach(), numbers)  # nothing to learn from what is not known
        return Reading(numbers, read, tokens, [bag(vectors) for bag in self.bags])


class Objective(nn.Module):
    """One scalar from the vectors of a step, and what only training knows: temperature, decoder, sketch and bank.

    It is saved with every checkpoint and not with the towers: serving has no use for it.
    """

    def __init__(self, job: Job) -> None:
        super().__init__()
        loss, spec = job.loss, job.spec
        self.loss, self.seed, self.num_active = loss, job.seed, job.num_active
        start = torch.tensor(math.log(loss.temperature))
        self.log_temperature = nn.Parameter(start) if loss.learn_temperature else None
        size = loss.sketch
        streaming = loss.log_q == "streaming"
        self.sketch = log_q.Sketch(spec.num_items, size.width, size.num_hashes, size.rate) if streaming else None
        kept = loss.negatives
        self.bank = Bank(kept.bank, spec.model.dim, kept.bank_after_steps) if kept.bank else None
        reads = [term.max_tokens for term in loss.terms if isinstance(term, Reconstruction)]
        self.decoder = Decoder(spec.items, spec.model.dim, reads[0]) if reads else None

    @property
    def temperature(self) -> Tensor | float:
        """What the terms of ``config_loss.TEMPERED`` divide by."""
        return self.loss.temperature if self.log_temperature is None else self.log_temperature.exp()

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring a learned temperature back between 0.01 and 10."""
        if self.log_temperature is not None:
            self.log_temperature.clamp_(math.log(_LOWEST_TEMPERATURE), math.log(_HIGHEST_TEMPERATURE))

    def forward(
        self, users: Tensor, items: Tensor, passes: Passes, in_batch: Later, inputs: Inputs, number: int
    ) -> Tensor:
        """This process's loss in step ``number``, such that the mean over processes is that of one with all rows.

        ``users`` and ``items`` are the towers' vectors of all rows of ``passes``, ``in_batch`` the items of all
        processes' pairs. They are taken into the sketch before they are judged, and into the bank afterwards.
        """
        mine, *user_views = torch.split(users, passes.batch_rows)
        batch, drawn, private, *item_views = torch.split(items, passes.item_runs)
        own = torch.arange(passes.batch_rows, device=users.device) + exchange.rank() * passes.batch_rows
        given = Material(
            mine,
            batch,
            own,
            passes.weights,
            passes.batch_items,
            passes.batch_history,
            self.temperature,
            self._candidates(mine, batch, drawn, private, own, passes, in_batch, inputs, number)
            if self.loss.has(*CONTRASTING)
            else None,
            tuple(user_views),
            tuple(item_views),
            self.decoder(batch, inputs.items.take(passes.batch_items)) if self.decoder is not None else None,
        )
        found = torch.stack([term.weight * terms.value(term, given) for term in self.loss.terms]).sum()
        if self.loss.has(*CONTRASTING, "rating"):
            return found
        return found + 0.0 * mine.sum()  # processes wait for the gradients of each other's user towers

    def items_of_all(self, passes: Passes) -> Later:
        """The items of all processes' pairs, sent for where a term compares with them."""
        if not self.loss.has(*CONTRASTING):
            return lambda: passes.batch_items
        return exchange.gathered_later(passes.batch_items)

    def _candidates(
        self,
        users: Tensor,
        batch: Tensor,
        drawn: Tensor,
        private: Tensor,
        own: Tensor,
        passes: Passes,
        in_batch: Later,
        inputs: Inputs,
        number: int,
    ) -> Candidates:
        """The batch of all processes, the items drawn evenly, and the bank; the first and the last are training pairs.

        Every one has the log-probability of the mixture of both samplers, whichever of them it came by. What is private
        to a row was drawn by no sampler, and nothing is corrected of it: it counts as an item that was drawn evenly,
        with probability 1 / items, which is what the correction makes of the others (the mean of 1 / q over draws by q
        is the number of items). So an explicit negative weighs as much as a sampled item, as hard ones do beside random
        ones in Huang et al., KDD 2020, section 6.1; with a log q of 0 it would weigh next to nothing.
        """
        kept = self.loss.negatives
        vectors, items = exchange.gather(batch), in_batch()
        if self.sketch is not None:
            self.sketch.update(items)
        found = [(vectors, items, self._log_q(items, inputs))]
        if kept.uniform:
            even = exchange.gather(drawn)[: kept.uniform]
            found.append((even, passes.uniform, self._log_q(passes.uniform, inputs)))
        if self.bank is not None:
            found.append(self.bank.held(number, len(items)))
        all_vectors, all_items, likely = (torch.cat(columns) for columns in zip(*found, strict=True))
        if self.bank is not None:
            self.bank.push(number, vectors.detach(), items, found[0][2])
        negative = negatives.of(own, all_items)
        if kept.hard or kept.random:
            order = torch.from_numpy(draws.order(self.seed, number, len(all_items))).to(users.device)
            turned = (order[None, :] + own[:, None] * 0x9E3779B1) % len(all_items)
            scores = users.detach() @ all_vectors.detach().T
            negative = negatives.hardest(scores, negative, turned, kept.hard, kept.random)
        strength = self.loss.log_q_strength
        corrected = strength * log_q.mixture(likely, len(all_items) - kept.uniform, kept.uniform, self.num_active)
        corrects = self.loss.log_q != "off"
        if passes.private is None:
            return Candidates(all_vectors, all_items, corrected if corrects else None, negative)
        apart = passes.private
        even = corrected.new_full((apart.shape[1],), -strength * math.log(self.num_active))
        return Candidates(
            all_vectors,
            all_items,
            torch.cat([corrected, even]) if corrects else None,
            torch.cat([negative, (apart >= 0) & (apart != passes.batch_items[:, None])], 1),
            private.view(*apart.shape, -1),
            apart,
        )

    def _log_q(self, items: Tensor, inputs: Inputs) -> Tensor:
        """Of each item, that a training pair has it; 0 where nothing is corrected."""
        if self.sketch is not None:
            return self.sketch.log_q(items)
        return inputs.log_q[items] if self.loss.log_q == "static" else torch.zeros(len(items), device=items.device)


def build(job: Job) -> Objective:
    """The objective before its first step, the same in every process and on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((job.seed + 1) % 2**63)
        return Objective(job)
