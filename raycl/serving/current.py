"""The release that answers now, and its replacement when a newer one is published."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from raycl.errors import RayclError
from raycl.serving.following import Following
from raycl.serving.meter import Meter, NoMeter
from raycl.serving.retriever import Retriever
from raycl.storage import pointer
from raycl.storage.pointer import Pointer
from raycl.storage.store import Store
from raycl.storage.versions import begun_at

log = logging.getLogger(__name__)


class Load(Protocol):
    """A release's name to a retriever that is ready; raises where the release cannot be trusted."""

    def __call__(self, name: str, *, quietly: bool) -> Retriever:
        """``quietly``: another release answers meanwhile."""


_MOST_POLLS = 64
"""Polls between two attempts at a release that could not be loaded, at the most."""


@dataclass
class _Failure:
    """A publication that could not be loaded, and how many polls leave it alone before the next attempt."""

    published: Pointer
    problem: str
    wait: int
    left: int


class Current:
    """One reference, replaced whole: a reader takes it once and answers from that release to the end."""

    def __init__(self, workspace: Store, load: Load, meter: Meter | None = None) -> None:
        self._workspace, self._load, self._meter = workspace, load, meter or NoMeter()
        self._following: Following | None = None
        self._failure: _Failure | None = None
        self.problem: str | None = None
        """Why the newest published release is not the one that answers; None where it is."""

    @property
    def retriever(self) -> Retriever:
        """The retriever that answers now; RayclError before the first release."""
        found = self._retriever
        if found is None:
            raise RayclError(
                self.problem or f"workspace={self._workspace.uri} has no published release: run raycl publish"
            )
        return found

    @property
    def _retriever(self) -> Retriever | None:
        found = self._following
        return found.retriever if found else None

    def poll(self) -> bool:
        """Look for a newer release, or what joined this one, take it, and measure that; True where answers change."""
        changed = self._look()
        self._meter.set("raycl_release_stale", float(self.problem is not None))
        if self._retriever is not None and (made := begun_at(self._retriever.release)) is not None:
            self._meter.set("raycl_release_age_seconds", (datetime.now(UTC) - made).total_seconds())
        return changed

    def _look(self) -> bool:
        """One look; True where the reference changed.

        Whatever goes wrong is kept in ``problem``, and logged where it was not the problem before; the release before,
        if there is one, goes on answering. A publication that cannot be loaded is left alone for 1 poll, then for 2, 4
        and so on, since to load it again is to read all of it again; another publication is loaded at once.
        """
        try:
            published = pointer.current(self._workspace)
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}", "the workspace cannot be asked for its newest release")
            return False
        if published is None or (self._retriever is not None and self._retriever.release == published.release):
            self._failure = None
            return self._follow()
        failed = self._failure if self._failure is not None and self._failure.published == published else None
        if failed is not None and failed.left:
            failed.left -= 1
            self.problem = failed.problem
            return False
        started = time.monotonic()
        try:
            loaded = Following(self._workspace, self._load(published.release, quietly=self._following is not None))
            loaded.look()
        except Exception as error:
            self._meter.add("raycl_swap_failures")
            wait = min(2 * failed.wait, _MOST_POLLS) if failed is not None else 1
            self._failure = _Failure(published, f"{type(error).__name__}: {error}", wait, wait)
            self._say(self._failure.problem, f"release {published.release} cannot be loaded")
            return False
        before = self._retriever.release if self._retriever else "none"
        self._following, self._failure = loaded, None
        self._tell()
        self._meter.add("raycl_swaps")
        self._meter.observe("raycl_swap_seconds", time.monotonic() - started)
        log.info("release %s answers in place of %s", published.release, before)
        return True

    def _follow(self) -> bool:
        """Take what joined the release that answers; True where the reference changed."""
        following = self._following
        if following is None:
            self.problem = None
            return False
        try:
            changed = following.look()
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}", "what joined the release cannot be read")
            return False
        if changed:
            self._meter.observe("raycl_delta_seconds", following.waited_s)
            log.info("release %s answers with hand-in %d", following.retriever.release, following.retriever.delta)
        self._tell()
        return changed

    def _tell(self) -> None:
        """Keep, and log where it is a new one, the problem of hand-ins that the current release does without."""
        assert self._following is not None
        problem = self._following.problem
        if problem is not None and problem != self.problem:
            log.error("%s; release %s goes on without", problem, self._following.retriever.release)
        self.problem = problem
        self._meter.set("raycl_delta", float(self._following.retriever.delta))

    def _say(self, problem: str, what: str) -> None:
        """Keep the problem of the ``except`` that calls this, and log it where it is a new one."""
        if problem != self.problem:
            goes_on = f"{self._retriever.release} goes on answering" if self._retriever else "nothing answers"
            log.exception("%s; %s", what, goes_on)
        self.problem = problem
