"""A sink in a thread: it hears everything in order, and what it suffers is no concern of the run."""

from __future__ import annotations

import logging
import threading

import pytest

from raycl.tracking import background
from raycl.tracking.background import Background, Sinks
from raycl.tracking.events import Event, Sink
from tests.tracking.test_events import at


class Heard:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.words: list[object] = []

    def put(self, event: Event) -> None:
        self.words.append(event["loss"])

    def flush(self) -> None:
        self.words.append("flush")

    def close(self, *, finished: bool) -> None:
        self.words.append(finished)


@pytest.mark.parametrize("finished", [True, False])
def test_events_come_in_order_and_the_end_last(finished: bool) -> None:
    heard = Heard()
    sink = Background("mlflow", lambda: heard)
    for loss in range(5):
        sink.put(at(1, loss))
        sink.flush()
    sink.close(finished=finished)
    assert heard.words == [0, 1, 2, 3, 4, finished]


def test_it_flushes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_FLUSH_EVERY_S", 0.001)
    flushed = threading.Event()

    class Flushed(Heard):
        def flush(self) -> None:
            flushed.set()

    sink = Background("mlflow", Flushed)
    assert flushed.wait(30.0)
    sink.close(finished=True)


def test_a_sink_that_fails_is_told_once_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Heard):
        def put(self, event: Event) -> None:
            super().put(event)
            if event["loss"] == 13:
                raise OSError("no route to host\nmore of it")

    heard, beside = Fails(), Heard()

    def broken() -> Sink:
        raise ValueError("cannot be opened")

    sinks = Sinks([Background("mlflow", lambda: heard), Background("other", broken), beside])
    with caplog.at_level(logging.WARNING):
        for loss in (1, 13, 2):
            sinks.put(at(1, loss))
        sinks.close(finished=True)
    assert heard.words == [1, 13]
    assert beside.words == [1, 13, 2, True]
    told = sorted(record.getMessage() for record in caplog.records)
    assert told == [
        "mlflow hears no more of this run: no route to host",
        "other hears no more of this run: cannot be opened",
    ]
