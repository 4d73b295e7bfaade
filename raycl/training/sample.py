"""Training events to count things by, as many as one process takes at once."""

from __future__ import annotations

from raycl.data import reader
from raycl.data.handoff import Pairs
from raycl.data.packed import Sequences

_EVENTS = 20_000_000


def of(pairs: Pairs) -> list[Sequences]:
    """What training knows of the users of the first files, up to about 20 million events.

    A file holds the users of one hash, so the first files are as good a sample as any.
    """
    parts: list[Sequences] = []
    for path, _ in pairs.files("train"):
        parts.append(reader.read(pairs.store, [path], "train").trained_on())
        if sum(len(part.items) for part in parts) >= _EVENTS:
            break
    return parts
