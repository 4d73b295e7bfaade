"""Requests that came while others were answered, answered together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

_HERE_UP_TO_S = 0.02
"""What may keep the event loop from listening; a thread costs a tenth of a millisecond and a fight for the interpreter.
"""
_LEARN = 0.2


class Batches(Generic[Asked, Answered]):
    """Puts requests into batches; one event loop calls it.

    A batch begins as soon as the one before it has ended, with all that came meanwhile and what comes while that is
    read, so that batches grow with the load, and without load nobody waits. Light requests do not wait for the others:
    while they are expected to take no longer than a few milliseconds together the event loop answers them itself, else
    a thread, as it does all others.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Answered]],
        most: int,
        wait_s: float = 0.0,
        light: Callable[[Asked], int] = lambda asked: 0,
    ) -> None:
        """``answer``: blocks for as long as it takes, and raises for no single request.

        ``most``: requests of one batch; ``wait_s``: how long the first of a batch waits for others; ``light``: how many
        light ones a request counts for, 0 for one that is not light.
        """
        self._answer, self._light = answer, light
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="batch")
        self._easy = _Lane(self, most, wait_s)
        self._hard = _Lane(self, most, wait_s)
        self._each_s: float | None = None

    def __call__(self, asked: Asked) -> asyncio.Future[Answered]:
        """What ``answer`` says to this request, in time."""
        size = self._light(asked)
        return (self._easy if size else self._hard).add(asked, size)

    def fits_here(self, size: int) -> bool:
        """Whether so many light requests may be answered on the event loop; never before one was timed."""
        return size > 0 and self._each_s is not None and size * self._each_s <= _HERE_UP_TO_S

    def run_here(self, batch: list[Asked], size: int) -> Sequence[Answered]:
        """Answer, and learn what light requests take."""
        began = time.perf_counter()
        found = self._answer(batch)
        if size:
            each_s = (time.perf_counter() - began) / size
            self._each_s = each_s if self._each_s is None else (1 - _LEARN) * self._each_s + _LEARN * each_s
        return found

    def run_in_thread(self, batch: list[Asked], size: int) -> asyncio.Future[Sequence[Answered]]:
        """``run_here``, elsewhere."""
        return asyncio.get_running_loop().run_in_executor(self._threads, self.run_here, batch, size)


class _Lane(Generic[Asked, Answered]):
    """Requests in the order in which they came, one batch of them under way at a time."""

    def __init__(self, batches: Batches[Asked, Answered], most: int, wait_s: float) -> None:
        self._batches, self._most, self._wait_s = batches, most, wait_s
        self._waiting: deque[tuple[Asked, int, asyncio.Future[Answered]]] = deque()
        self._under_way = False
        self._seen = 0  # of those who wait, when the loop looked last

    def add(self, asked: Asked, size: int) -> asyncio.Future[Answered]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        self._waiting.append((asked, size, future))
        if not self._under_way:
            self._under_way = True
            if self._wait_s:
                loop.call_later(self._wait_s, self._begin)
            else:
                loop.call_soon(self._begin)
        return future

    def _begin(self) -> None:
        """Answer the next batch; those who gave up waiting are not of it.

        Only when the loop has looked for requests and found no more: to read them comes before the answers anyway, and
        what they share they then pay once.
        """
        if self._seen < len(self._waiting) < self._most:
            self._seen = len(self._waiting)
            asyncio.get_running_loop().call_soon(self._begin)
            return
        self._seen = 0
        taken: list[tuple[Asked, int, asyncio.Future[Answered]]] = []
        while self._waiting and len(taken) < self._most:
            one = self._waiting.popleft()
            if not one[2].done():
                taken.append(one)
        if not taken:
            self._under_way = False
            return
        batch, size = [asked for asked, _, _ in taken], sum(size for _, size, _ in taken)
        futures = [future for _, _, future in taken]
        if not self._batches.fits_here(size):
            self._batches.run_in_thread(batch, size).add_done_callback(lambda done: self._end(done, futures))
            return
        ended: asyncio.Future[Sequence[Answered]] = asyncio.get_running_loop().create_future()
        try:
            ended.set_result(self._batches.run_here(batch, size))
        except Exception as error:
            ended.set_exception(error)
        self._end(ended, futures)

    def _end(self, ended: asyncio.Future[Sequence[Answered]], futures: list[asyncio.Future[Answered]]) -> None:
        error = ended.exception()
        for place, future in enumerate(futures):
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(ended.result()[place])
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._begin)
        else:
            self._under_way = False
