"""How training tells the user tower what a request carries: features fitted once, and kept for all who ask later."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from raycl import schema
from raycl.config import Feature
from raycl.data import reader
from raycl.data.features import Encoders
from raycl.data.handoff import Pairs
from raycl.errors import InputError
from raycl.model import users
from raycl.storage.store import Store

_SAMPLE = 2_000_000


def encoders(features: Sequence[Feature], pairs: Pairs, store: Store) -> Encoders:
    """The fitted ``features`` that a run keeps under ``store``; the first call of the run fits them.

    Fitted to training targets alone, about 2 million of them. A file holds the users of one hash, so the first files
    are as good a sample as any. InputError where a column is not what the feature's kind reads.
    """
    if store.exists(users.CONTEXT_FILE):
        return users.load_context(store)
    try:
        found = Encoders.fit(features, _sample(features, pairs)) if features else Encoders()
    except InputError as error:
        raise InputError(f"context: {error}") from error
    users.save_context(store, found)
    return found


def _sample(features: Sequence[Feature], pairs: Pairs) -> pa.Table:
    """What the targets of some training pairs carry."""
    names = [feature.column for feature in features]
    parts, size = [], 0
    for path, _ in pairs.files("train"):
        sequences = reader.read(pairs.store, [path], "train", [schema.context_column(name) for name in names])
        places = pa.array(sequences.targets(pairs.rules))
        parts.append(pa.table({name: sequences.context[name].take(places) for name in names}))
        size += len(places)
        if size >= _SAMPLE:
            break
    return pa.concat_tables(parts)
