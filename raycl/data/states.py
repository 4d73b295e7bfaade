"""What is known of users at a moment each: what evaluation and the gate ask the user tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.config import PairRules
from raycl.data.packed import Ints, Rows, Sequences


@dataclass(frozen=True)
class States:
    """One user at one moment a row, as ``reader.Batch`` has the users of training pairs."""

    history: Rows
    """(users, max_history), rows of the vocabulary, the newest first and then -1"""
    user_row: Rows
    """(users,); -1 for a user who is not in the user table"""
    age_s: npt.NDArray[np.float32] | None = None
    """(users, max_history) seconds from each event to the moment; negative or NaN where that is not known, which is
    everywhere in None"""
    context: Mapping[str, Any] = field(default_factory=dict)
    """By column of the log: an Arrow array (users,)"""

    def __len__(self) -> int:
        return len(self.history)

    def take(self, rows: Ints) -> States:
        """The states at these places."""
        ages = None if self.age_s is None else self.age_s[rows]
        places = pa.array(rows)
        context = {name: values.take(places) for name, values in self.context.items()}
        return States(self.history[rows], self.user_row[rows], ages, context)

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> States:
        """The states of all parts, of which there is at least one, end to end; the parts have the same columns."""
        ages = [part.age_s for part in parts if part.age_s is not None]
        context = {name: pa.concat_arrays([part.context[name] for part in parts]) for name in parts[0].context}
        return States(
            np.concatenate([part.history for part in parts]),
            np.concatenate([part.user_row for part in parts]),
            np.concatenate(ages) if ages else None,
            context,
        )


def before_targets(sequences: Sequences, rules: PairRules, part: str) -> States:
    """Each user before the first target of ``part``, at its time and with its context; every user must have one.

    Without an order of events no age is known.
    """
    history = sequences.states(rules, part)
    spans = sequences.spans(part, rules)
    ages = None
    if has_ages(rules):
        ends = sequences.history_ends(spans)
        seen = ends[:, None] - np.arange(1, rules.max_history + 1)
        times_ms = sequences.times_ms
        past_ms = times_ms[spans.first][:, None] - times_ms[np.maximum(seen, 0)]
        ages = np.where(history >= 0, past_ms / 1000, -1).astype(np.float32)
    places = pa.array(spans.first)
    context = {name: values.take(places) for name, values in sequences.context.items()}
    return States(history, sequences.user_row, ages, context)


def has_ages(rules: PairRules) -> bool:
    """Whether histories follow time, so that every event of one has an age."""
    return rules.history == "before"
