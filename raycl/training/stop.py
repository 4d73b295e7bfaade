"""The early end of training: who asks for it, and the step at which all processes agree to end."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor

from raycl.training import exchange
from raycl.training.exchange import Later

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STEPS_BEHIND = {"cpu": 1, "cuda": 2}
"""How many steps further a process looks at what was exchanged, so that it need not wait: for the others, or also for
a GPU, which the host runs ahead of."""


class Stopped(KeyboardInterrupt):
    """Training ended before it was done, as it was asked to, and its newest checkpoint is of its last step."""


@dataclass(frozen=True)
class _Wish:
    """How many processes asked for the end by some step, on its way from the device."""

    asked: Later
    there: torch.cuda.Event | None

    def count(self) -> float:
        if self.there is not None:
            self.there.synchronize()
        return float(self.asked())


class Agreement:
    """Brings the wish of one process to end, set at any time, to the same step of all; every process has one.

    The wish goes along with the mean of the loss, so it costs no exchange of its own.
    """

    def __init__(self, asked: threading.Event) -> None:
        self._asked = asked
        self._behind: deque[_Wish] = deque()

    def mean(self, value: Tensor) -> Later:
        """``exchange.mean`` of a step's loss, on its way."""
        if exchange.world_size() == 1:
            return lambda: value
        wish = torch.full_like(value, float(self._asked.is_set()))
        both = exchange.mean_later(torch.stack([value.detach(), wish]))
        self._behind.append(_Wish(lambda: both()[1], None) if value.device.type == "cpu" else _fetched(both()[1]))
        return lambda: both()[0]

    def reached(self, *, at_once: bool) -> bool:
        """Whether training ends after this step: the same in every process, once any of them was asked to end.

        With ``at_once`` what was asked in this very step counts too, which may take a wait for the others. All
        processes say the same of it.
        """
        if exchange.world_size() == 1:
            return self._asked.is_set()
        behind = 0 if at_once else _STEPS_BEHIND["cpu" if self._behind[-1].there is None else "cuda"]
        seen = [self._behind.popleft().count() for _ in range(len(self._behind) - behind)]
        return any(count > 0.0 for count in seen)


def _fetched(asked: Tensor) -> _Wish:
    there = torch.cuda.Event()  # type: ignore[no-untyped-call]
    fetched = torch.empty_like(asked, device="cpu", pin_memory=True).copy_(asked, non_blocking=True)
    there.record()
    return _Wish(lambda: fetched, there)


@contextlib.contextmanager
def on_signals(asked: threading.Event) -> Iterator[None]:
    """Within, SIGTERM and SIGINT set ``asked``, and a second one does what it did before.

    Signals reach the main thread alone; in any other nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _: FrameType | None) -> None:
        restore()
        asked.set()
        log.warning(
            "%s: training ends within a few steps, with a checkpoint; again to end at once",
            signal.Signals(number).name,
        )

    for number in _SIGNALS:
        signal.signal(number, ask)
    try:
        yield
    finally:
        restore()
