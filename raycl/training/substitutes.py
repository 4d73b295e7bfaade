"""Which item may stand in for another in a changed view of a history."""

from __future__ import annotations

import safetensors.numpy as sn

from raycl.config_loss import LossConfig
from raycl.data import reader, views
from raycl.data.handoff import Pairs
from raycl.data.packed import Rows, Sequences
from raycl.storage.store import Store
from raycl.storage.versions import WORK

FILE = f"{WORK}/substitutes.safetensors"
_SAMPLE = 20_000_000


def neighbours(loss: LossConfig, pairs: Pairs, store: Store) -> Rows | None:
    """``views.correlated`` over about 20 million training events; None where no view asks.

    The first call of a run leaves them under ``store`` for the others. A file holds the users of one hash, so the
    first files are as good a sample as any.
    """
    if not any(term.kind == "views" and term.substitute is not None for term in loss.terms):
        return None
    if store.exists(FILE):
        return sn.load(store.read(FILE))["item"]
    found = views.correlated(_sample(pairs), pairs.num_items)
    store.write(FILE, sn.save({"item": found}))
    return found


def _sample(pairs: Pairs) -> list[Sequences]:
    """What training reads of the first files."""
    parts: list[Sequences] = []
    for path, _ in pairs.files("train"):
        parts.append(reader.read(pairs.store, [path], "train").trained_on())
        if sum(len(part.items) for part in parts) >= _SAMPLE:
            break
    return parts
