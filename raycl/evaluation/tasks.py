"""Evaluation of one file of held-out sequences: read, embed the users, rank, sum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raycl.config import EvaluationConfig
from raycl.data import reader, states
from raycl.data.handoff import Pairs
from raycl.data.packed import Sequences
from raycl.evaluation import ranking
from raycl.evaluation.metrics import Sums
from raycl.model import inputs
from raycl.model.inputs import FeatureRows
from raycl.model.users import UserSide
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft

_CELLS = 1 << 26
"""Scores that a task holds at once, of 4 bytes each."""


@dataclass(frozen=True)
class Job:
    """What every task needs to know."""

    draft: Draft
    pairs: Pairs
    towers: Store
    config: EvaluationConfig

    @property
    def files(self) -> tuple[tuple[str, int], ...]:
        """Path and number of pairs of each file that is measured."""
        return self.pairs.files(self.config.part)


def measure_file(job: Job, number: int, item_vectors: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Measure the users of one file; the record holds sums, and a file beside it the items that lists held.

    ``item_vectors`` are those of the items that may be retrieved, in the order of their rows.
    """
    task = f"file-{number:06d}"
    if (record := job.draft.task_done(task)) is not None:
        return record
    pairs, config = job.pairs, job.config
    side = UserSide.load(job.towers)
    sequences = reader.read(pairs.store, [job.files[number][0]], config.part, side.columns)
    asked, spans = states.before_targets(sequences, pairs.rules, config.part), sequences.spans(config.part, pairs.rules)
    users = side.vectors(asked, user_features(pairs))
    active = ~pairs.retired()
    sequences = replace(sequences, items=(np.cumsum(active) - 1)[sequences.items].astype(np.int32))
    items = torch.from_numpy(np.array(item_vectors))
    num_items = len(items)
    users_per_block = max(1, min(config.users_per_block, _CELLS // num_items))
    # The rule that makes a pair, so that who is measured does not depend on who else is in the file.
    measured = (asked.history >= 0).sum(1) >= min(pairs.rules.min_history, pairs.rules.max_history)
    rankings = {
        "towers": ranking.by_score(lambda block: torch.from_numpy(users[block]) @ items.T),
        "popularity": ranking.by_popularity(pairs.train_counts()[active]),
    }
    record = {}
    for name, rank in rankings.items():
        sums = ranking.evaluate(sequences, spans, rank, config.ks, num_items, users_per_block, measured)
        record[name] = sums.to_json()
        job.draft.store.write(_covered(task, name), sums.covered_bits())
    job.draft.finish_task(task, record)
    return record


def merge(job: Job, records: list[dict[str, Any]], num_items: int) -> dict[str, Sums]:
    """Sums over all files, of ``towers`` and of ``popularity``."""
    found = {"towers": Sums(), "popularity": Sums()}
    for number, record in enumerate(records):
        for name, total in found.items():
            bits = job.draft.store.read(_covered(f"file-{number:06d}", name))
            total.add(Sums.from_json(record[name], bits, num_items))
    return found


def user_vectors(pairs: Pairs, towers: Store, sequences: Sequences, part: str) -> npt.NDArray[np.float32]:
    """Vectors (users, dim) of each user's state before the first target of ``part``."""
    return UserSide.load(towers).vectors(states.before_targets(sequences, pairs.rules, part), user_features(pairs))


def user_features(pairs: Pairs) -> FeatureRows:
    """Features of the user table, and a last row for users who are not in it."""
    encoded = pairs.encoded("users")
    return inputs.from_table(encoded, pairs.encoders("users"), encoded.num_rows if encoded else 0, unknown_row=True)


def item_features(pairs: Pairs) -> FeatureRows:
    """Features of every item of the vocabulary."""
    return inputs.from_table(pairs.encoded("items"), pairs.encoders("items"), pairs.num_items)


def _covered(task: str, name: str) -> str:
    return f"{WORK}/covered/{task}-{name}"
