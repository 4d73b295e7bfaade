"""Event files as TensorBoard reads them: a further small file at each flush, so that S3 will do, and one at the end.

TensorBoard reads the files of a folder in the order of their names, and goes on to newer ones while a run lasts.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from raycl.storage.store import Store
from raycl.tracking.events import Event, scalars

FOLDER = "tensorboard"
_VERSION = "brain.Event:2"


class TensorBoard:
    """Event files under ``tensorboard/`` of the draft of the towers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._number = _next(store.names(FOLDER))
        self._waiting: list[Event] = []

    def put(self, event: Event) -> None:
        self._waiting.append(event)

    def flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._store.write(f"{FOLDER}/{_name(self._number)}", encode(waiting))
            self._number += 1

    def close(self, *, finished: bool) -> None:
        self.flush()


def write_whole(store: Store, events: Iterable[Event]) -> None:
    """Replace all event files under ``store`` by one with the events that count."""
    old = store.names(FOLDER)
    begin: Event = {"kind": "start", "step": -1, "time": 0.0}  # to a reader that knows the old ones they count no more
    found = list(events)
    store.write(f"{FOLDER}/{_name(_next(old))}", encode([{**begin, "time": found[0]["time"]}, *found] if found else []))
    for name in old:
        store.delete(f"{FOLDER}/{name}")


def encode(events: Iterable[Event]) -> bytes:
    """An event file; a start makes TensorBoard forget the later steps that it has read before."""
    from tensorboard.compat.proto.event_pb2 import Event as Proto
    from tensorboard.compat.proto.event_pb2 import SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    records = RecordWriter(content)
    events = list(events)
    first = float(events[0]["time"]) if events else 0.0
    records.write(Proto(wall_time=first, file_version=_VERSION).SerializeToString())
    for event in events:
        time, step = float(event["time"]), int(event["step"])
        if event["kind"] == "start":
            proto = Proto(wall_time=time, step=step + 1, session_log=SessionLog(status=SessionLog.START))
        else:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(event).items()]
            proto = Proto(wall_time=time, step=step, summary=Summary(value=values))
        records.write(proto.SerializeToString())
    return content.getvalue()


def _name(number: int) -> str:
    return f"events.out.tfevents.{number:010d}.raycl"


def _next(names: Sequence[str]) -> int:
    """The number of a file that comes after these, in their order."""
    return int(names[-1].split(".")[-2]) + 1 if names else 0
