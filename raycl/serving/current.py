"""The release that answers now, and its replacement when a newer one is published."""

from __future__ import annotations

import logging
from collections.abc import Callable

from raycl.errors import RayclError
from raycl.serving.retriever import Retriever
from raycl.storage import pointer
from raycl.storage.store import Store

log = logging.getLogger(__name__)

Load = Callable[[str], Retriever]
"""A release's name to a retriever that is ready; raises where the release cannot be trusted."""


class Current:
    """One reference, replaced whole: a reader takes it once and answers from that release to the end."""

    def __init__(self, workspace: Store, load: Load) -> None:
        self._workspace, self._load = workspace, load
        self._retriever: Retriever | None = None
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

    def poll(self) -> bool:
        """Look for a newer release, load it, and take it; True where the reference changed.

        Whatever goes wrong is kept in ``problem`` and logged, and the old release goes on answering.
        """
        try:
            published = pointer.current(self._workspace)
            if published is None or (self._retriever is not None and self._retriever.release == published.release):
                self.problem = None
                return False
            loaded = self._load(published.release)
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
            log.exception("the newest release cannot be loaded; the one before goes on answering")
            return False
        before = self._retriever.release if self._retriever else "none"
        self._retriever, self.problem = loaded, None
        log.info("release %s answers in place of %s", published.release, before)
        return True
