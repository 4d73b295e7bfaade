"""What is asked for next, made by a thread before it is asked for."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


def ahead(items: Iterator[T], count: int) -> Generator[T, None, None]:
    """The ``items`` in their order, up to ``count`` of them made or being made before they are asked for.

    The thread starts with the first that is asked for. An error is raised where its item would have come. Close this
    generator to end early: when that returns, the thread has ended and ``items``, where it can be, is closed. An item
    that was handed out is not held here any more, so at most ``count`` and what the caller keeps are in memory.
    """
    free, made, closed = threading.Semaphore(count), queue.SimpleQueue[list[T] | _End](), threading.Event()
    thread = threading.Thread(target=_make, args=(items, free, made, closed), name="raycl-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(found := made.get(), _End):
            free.release()
            yield found.pop()
        if found.error is not None:
            raise found.error
    finally:
        closed.set()
        free.release()
        thread.join()


def _make(
    items: Iterator[T], free: threading.Semaphore, made: queue.SimpleQueue[list[T] | _End], closed: threading.Event
) -> None:
    try:
        with contextlib.closing(items) if isinstance(items, Generator) else contextlib.nullcontext():
            while True:
                free.acquire()
                if closed.is_set():
                    return
                made.put([next(items)])
    except StopIteration:
        made.put(_End())
    except BaseException as error:
        made.put(_End(error))
