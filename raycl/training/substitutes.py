"""Which item may stand in for another in a changed view of a history."""

from __future__ import annotations

import safetensors.numpy as sn

from raycl.config_loss import LossConfig
from raycl.data import views
from raycl.data.handoff import Pairs
from raycl.data.packed import Rows
from raycl.storage.store import Store
from raycl.storage.versions import WORK
from raycl.training import sample

FILE = f"{WORK}/substitutes.safetensors"


def neighbours(loss: LossConfig, pairs: Pairs, store: Store) -> Rows | None:
    """``views.correlated`` over the events of ``sample.of``; None where no view asks.

    The first call of a run leaves them under ``store`` for the others.
    """
    if not any(term.kind == "views" and term.substitute is not None for term in loss.terms):
        return None
    if store.exists(FILE):
        return sn.load(store.read(FILE))["item"]
    found = views.correlated(sample.of(pairs), pairs.num_items)
    store.write(FILE, sn.save({"item": found}))
    return found
