"""The held-out users that the gate asks for, drawn once for all that it measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raycl.data import states
from raycl.data.handoff import Pairs
from raycl.data.packed import Ints
from raycl.data.reader import read
from raycl.data.states import States
from raycl.index.work import Asking


@dataclass(frozen=True)
class Questions:
    """At most ``gate.num_queries`` held-out users, each before its first target."""

    states: States
    targets: Ints
    """(users,): the item that each is to find"""

    def __len__(self) -> int:
        return len(self.targets)


def drawn(job: Asking, columns: Sequence[str] = ()) -> Questions:
    """The same users whenever a job is asked, drawn by the seed over all test files; ``columns`` are read besides."""
    found, targets = zip(*_by_file(job, columns), strict=True)
    wanted = slice(job.config.gate.num_queries)
    every = States.concat(found)
    return Questions(every.take(np.arange(len(every))[wanted]), np.concatenate(targets)[wanted])


def _by_file(job: Asking, columns: Sequence[str]) -> Iterator[tuple[States, Ints]]:
    pairs = Pairs.of(job.pairs)
    files = [path for path, num_pairs in pairs.files("test") if num_pairs]
    generator = np.random.default_rng([job.config.seed, 2])
    for path in files:
        sequences = read(job.pairs.verified(path).store, [path], "test", columns)
        chosen = generator.permutation(len(sequences))[: -(-job.config.gate.num_queries // len(files))]
        targets = sequences.items[sequences.spans("test", pairs.rules).first].astype(np.int64)
        yield states.before_targets(sequences, pairs.rules, "test").take(chosen), targets[chosen]
