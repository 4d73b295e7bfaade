"""What users did since the last release: a bounded, expiring memory of one process."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from raycl.config_serving import SessionConfig
from raycl.serving.filters import ItemId


class Fresh(NamedTuple):
    """An event that is newer than the log, and when it was posted, in seconds since 1970."""

    item: ItemId
    time: float


@dataclass
class _Session:
    events: deque[Fresh]
    heard_s: float = field(default=0.0)


class Sessions:
    """Fresh events by user id, as text, for threads to share; another replica's are not here, a restart ends them."""

    def __init__(
        self,
        config: SessionConfig,
        ticks: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``ticks``: seconds that never go back; ``clock``: seconds since 1970."""
        self._config, self._ticks, self._clock = config, ticks, clock
        self._by_user: OrderedDict[str, _Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._by_user)

    def add(self, user: ItemId, items: Sequence[ItemId]) -> None:
        """Remember that a user met these items, the newest last."""
        if not self._config.max_users:
            return
        with self._lock:
            self._forget()
            name = str(user)
            session = self._by_user.setdefault(name, _Session(deque(maxlen=self._config.max_events)))
            posted = self._clock()
            session.events.extend(Fresh(item, posted) for item in items)
            session.heard_s = self._ticks()
            self._by_user.move_to_end(name)
            while len(self._by_user) > self._config.max_users:
                self._by_user.popitem(last=False)

    def of(self, user: ItemId) -> list[Fresh]:
        """Fresh events of a user, the newest last; none for one who is not known, or was silent for too long."""
        with self._lock:
            self._forget()
            session = self._by_user.get(str(user))
            return list(session.events) if session else []

    def _forget(self) -> None:
        """Drop the users who are silent: they stand first, since every event moves its user to the end."""
        oldest = self._ticks() - self._config.ttl_s
        while self._by_user and next(iter(self._by_user.values())).heard_s < oldest:
            self._by_user.popitem(last=False)
