"""Who is at work, such as on an unfinished version.

Leases are numbered, created and never overwritten by others; the highest holds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import threading
import time
import weakref
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from raycl.errors import InputError, RayclError
from raycl.storage.store import Store

log = logging.getLogger(__name__)

BEAT_S = 10.0
"""Seconds between heartbeats."""
STALE_S = 60.0
"""Seconds without a heartbeat after which an owner on another machine counts as dead; clocks must agree to less."""

_FILE = re.compile(r"(\d{6})\.json")


@dataclass(frozen=True)
class Owner:
    """A thread of a process, told apart from every other by what its machine says of it."""

    host: str
    machine: str
    """Boot and process namespace: numbers of processes compare where it is the same; empty where it is not known."""
    pid: int
    started: int
    """Clock ticks from boot to the start of the process, since a process's number is given again."""
    thread: int

    @classmethod
    def here(cls) -> Owner:
        """This thread."""
        pid = os.getpid()
        return cls(socket.gethostname(), _machine(), pid, (_process(pid) or ("", 0))[1], threading.get_native_id())

    def is_gone(self) -> bool:
        """Whether the owner is known to have ended.

        True for a process of this machine that runs no more, and for this very thread, which is not within the earlier
        work any more if it asks. False where that cannot be known from here.
        """
        here = Owner.here()
        if not self.machine or self.machine != here.machine:
            return False
        if (self.pid, self.started) == (here.pid, here.started):
            others = {thread.native_id for thread in threading.enumerate()} - {here.thread}
            return self.thread not in others
        found = _process(self.pid)
        return found is None or found[0] in "ZX" or found[1] != self.started


@dataclass(frozen=True)
class _Held:
    owner: Owner
    beat_s: float
    """Seconds since 1970 at the last heartbeat."""

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class Lease:
    """The right to fill one folder. It travels to other processes; the heartbeat stays where the lease was taken.

    The heartbeat ends with ``release``, with the process, or when nobody holds this object any more.
    """

    def __init__(self, store: Store, folder: str, number: int) -> None:
        self._store, self._folder, self.number = store, folder, number
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def __reduce__(self) -> tuple[type[Lease], tuple[Store, str, int]]:
        return Lease, (self._store, self._folder, self.number)

    def require(self) -> None:
        """Raise RayclError unless this is still the newest lease of the folder."""
        if _newest(self._store, self._folder) != self.number:
            raise RayclError(
                f"{self._store.uri} was taken over by another run, since this one gave no heartbeat for"
                f" {STALE_S:g} s: let that run finish and use its version"
            )

    def release(self) -> None:
        """End the heartbeat; when this returns, no more is written."""
        self._ended.set()
        if self._heart is not None:
            self._heart.join()

    def give_back(self) -> None:
        """End the heartbeat and let the next owner in at once, wherever it runs; older leases of the folder go."""
        self.release()
        if _newest(self._store, self._folder) != self.number:
            return
        self._store.write(_path(self._folder, self.number), _Held(Owner.here(), 0.0).to_bytes())
        for number in _numbers(self._store, self._folder):
            if number < self.number:
                self._store.delete(_path(self._folder, number))

    def _start(self, owner: Owner) -> None:
        beat = (self._store, self._folder, self.number, owner, self._ended)
        self._heart = threading.Thread(target=_beat, args=beat, name="raycl-lease", daemon=True)
        self._heart.start()
        weakref.finalize(self, self._ended.set)


def take(store: Store, folder: str, remedy: str = ", or use --force for a version beside it") -> Lease:
    """Take the version whose root is ``store``, with its leases in ``folder``, over from an owner that has ended.

    InputError, naming folder, owner and what to do, at the end the ``remedy``, where the owner may still run: it is not
    known to have ended, and its last heartbeat is no older than ``STALE_S``.
    """
    while True:
        number = _newest(store, folder)
        held = _read(store, folder, number)
        if held is not None:
            _require_gone(store, held, remedy)
        lease = first(store, folder, number + 1)
        if lease is not None:
            return lease


def require_free(store: Store, folder: str, remedy: str) -> None:
    """Raise the InputError that ``take`` would; nothing is written."""
    held = _read(store, folder, _newest(store, folder))
    if held is not None:
        _require_gone(store, held, remedy)


def first(store: Store, folder: str, number: int = 1) -> Lease | None:
    """The lease of this number, with its heartbeat running, or None where somebody has it."""
    owner = Owner.here()
    if not store.create(_path(folder, number), _Held(owner, time.time()).to_bytes()):
        return None
    lease = Lease(store, folder, number)
    lease._start(owner)
    return lease


def _require_gone(store: Store, held: _Held, remedy: str) -> None:
    age_s = time.time() - held.beat_s
    if age_s > STALE_S or held.owner.is_gone():
        return
    beat = datetime.fromtimestamp(held.beat_s, UTC)
    raise InputError(
        f"{store.uri} is being made by process {held.owner.pid} on host {held.owner.host} (last heartbeat"
        f" {beat:%Y-%m-%d %H:%M:%S} UTC, {max(age_s, 0.0):.0f} s ago): wait for it, or end it and run again (at once on"
        f" its host, elsewhere {STALE_S:g} s after its last heartbeat){remedy}"
    )


def _beat(store: Store, folder: str, number: int, owner: Owner, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        try:
            if _newest(store, folder) != number:
                log.error("%s was taken over by another run", store.uri)
                return
            store.write(_path(folder, number), _Held(owner, time.time()).to_bytes())
        except OSError as error:
            log.warning("no heartbeat for %s, which others may take over after %g s: %s", store.uri, STALE_S, error)


def _newest(store: Store, folder: str) -> int:
    return max(_numbers(store, folder), default=0)


def _numbers(store: Store, folder: str) -> list[int]:
    return [int(found[1]) for name in store.names(folder) if (found := _FILE.fullmatch(name))]


def _read(store: Store, folder: str, number: int) -> _Held | None:
    """The lease of this number; None where there is none, or none that this raycl can read."""
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        plain = json.loads(store.read(_path(folder, number)))
        return _Held(Owner(**plain["owner"]), float(plain["beat_s"]))
    return None


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.json"


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process(pid: int) -> tuple[str, int] | None:
    """State and start of a process of this machine, or None where it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[19])
