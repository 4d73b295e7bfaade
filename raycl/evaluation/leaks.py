"""What a result must not rest on: looked for in the sequences before anything is measured, and among the features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from raycl.data import leakage
from raycl.data.columns import whole
from raycl.data.handoff import Pairs
from raycl.data.leakage import Leak
from raycl.data.packed import Sequences
from raycl.data.splits import Cuts
from raycl.errors import RayclError


def require_none_in_sequences(pairs: Pairs, path: str, table: pa.Table, sequences: Sequences, seed: int) -> None:
    """RayclError that names the leaks of one file of sequences, by the checks of the pairs stage.

    Test rows in training, targets inside their histories, parts that overlap in time: pairs were written without them,
    so it is a file that was changed, or pairs that something else made.
    """
    events = table["events"] if "events" in table.column_names else None
    kinds = np.zeros(len(sequences.items), np.uint8)
    if events is not None:
        kinds = np.asarray(whole(events).flatten().to_numpy(zero_copy_only=False), dtype=np.uint8)
    written = leakage.Written(sequences, whole(table["user"]), kinds)
    cuts = Cuts(int(pairs.facts.get("val_from_ms", 0)), int(pairs.facts.get("test_from_ms", 0)))

    def item_ids(rows: Any) -> Any:
        return whole(pairs.vocabulary()["item"]).take(pa.array(rows))

    leaks = leakage.find(written, pairs.rules, cuts, seed, item_ids)
    if leaks:
        raise RayclError(
            f"{pairs.store.uri}/{path} leaks: {'; '.join(map(_told, leaks))}. No result on these pairs can be believed:"
            f" run 'raycl pairs --force', and train and evaluate again"
        )


def _told(leak: Leak) -> str:
    return f"{leak.check} in {leak.num_cases:,} cases, one of them of user {leak.user!r}"
