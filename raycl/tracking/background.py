"""Sinks that take their time, fed by a thread: training waits for none, and ends for none."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from raycl.tracking.events import Event, Sink

log = logging.getLogger(__name__)

_FLUSH_EVERY_S = 15.0
_CLOSES_WITHIN_S = 20.0

Make = Callable[[], Sink]
"""Opens a sink, in the thread that feeds it; it may fail."""


class Background:
    """Hands events on to a sink within its thread. One that fails is told in the log, once, and gets no more.

    It flushes every 15 s, and less and less often in runs of many hours, so that files of one flush each stay few.
    """

    def __init__(self, name: str, make: Make) -> None:
        """``name`` is what the log calls the sink."""
        self._name, self._make = name, make
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._finished = False
        self._thread = threading.Thread(target=self._run, name=f"raycl-{name}", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        self._events.put(event)

    def flush(self) -> None:
        """The thread does it in its own time."""

    def close(self, *, finished: bool) -> None:
        """Wait for the thread, 20 s at most."""
        self._finished = finished
        self._events.put(None)
        self._thread.join(_CLOSES_WITHIN_S)
        if self._thread.is_alive():
            log.warning("%s is too slow: it may lack the end of the run", self._name)

    def _run(self) -> None:
        try:
            self._feed(self._make())
        except Exception as error:
            log.warning("%s hears no more of this run: %s", self._name, str(error).partition("\n")[0] or repr(error))

    def _feed(self, sink: Sink) -> None:
        began = flushed = time.monotonic()
        while True:
            pause = max(_FLUSH_EVERY_S, (flushed - began) / 100)
            event: Event | None = {}
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=max(flushed + pause - time.monotonic(), 0.0))
            if event is None:
                sink.close(finished=self._finished)
                return
            if event:
                sink.put(event)
            if time.monotonic() >= flushed + pause:
                sink.flush()
                flushed = time.monotonic()


class Sinks:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    def put(self, event: Event) -> None:
        for sink in self._sinks:
            sink.put(event)

    def flush(self) -> None:
        for sink in self._sinks:
            sink.flush()

    def close(self, *, finished: bool) -> None:
        for sink in self._sinks:
            sink.close(finished=finished)
