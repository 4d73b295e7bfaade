"""The JSON lines of a run: kept on storage with every checkpoint, so that curves survive what the run survives."""

from __future__ import annotations

import logging

from raycl.storage.store import Store
from raycl.storage.versions import WORK
from raycl.tracking import events
from raycl.tracking.events import Event

log = logging.getLogger(__name__)

PATH = f"{WORK}/track.jsonl"
"""Under the draft of the towers."""


class Lines:
    """One file, which every ``flush`` writes whole: there are some thousand events at most, however long the run."""

    def __init__(self, store: Store) -> None:
        self._store, self._events = store, list(read(store, PATH))

    def put(self, event: Event) -> None:
        if event["kind"] == "start":
            self._events = events.counted([*self._events, event])
        else:
            self._events.append(event)

    def flush(self) -> None:
        self._store.write(PATH, events.to_lines(self._events))

    def close(self, *, finished: bool) -> None:
        if finished:
            self.flush()  # a run that ends early goes on from its checkpoint, which this file was written before


def read(store: Store, path: str) -> list[Event]:
    """The events that count in such a file; none where there is no file, or one that is cut short."""
    try:
        return events.counted(events.from_lines(store.read(path)))
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s/%s holds no curves of a run (%s): they begin anew", store.uri, path, error)
        return []
