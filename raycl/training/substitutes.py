"""Which item may stand in for another in a changed view of a history."""

from __future__ import annotations

from raycl.config_loss import LossConfig
from raycl.data import reader, views
from raycl.data.handoff import Pairs
from raycl.data.packed import Rows, Sequences

_SAMPLE = 20_000_000


def neighbours(loss: LossConfig, pairs: Pairs) -> Rows | None:
    """``views.correlated`` over about 20 million training events, the same in every process; None where no view asks.

    A file holds the users of one hash, so the first files are as good a sample as any.
    """
    if not any(term.kind == "views" and term.substitute is not None for term in loss.terms):
        return None
    parts: list[Sequences] = []
    for path, _ in pairs.files("train"):
        parts.append(reader.read(pairs.store, [path], "train").trained_on())
        if sum(len(part.items) for part in parts) >= _SAMPLE:
            break
    return views.correlated(parts, pairs.num_items)
