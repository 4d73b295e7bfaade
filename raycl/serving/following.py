"""A release that answers with what joined it since: hand-ins are looked for, and taken without loading it again."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from raycl.data.columns import whole
from raycl.index import deltas, joined, release
from raycl.index.delta_search import JoinedIndex
from raycl.index.deltas import Taken
from raycl.serving.checked import Joined
from raycl.serving.retriever import Retriever
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace

_NEAR = 100
"""Items of the release among which one is looked for that stands for a new one in histories."""


class Following:
    """One release, as it was built and with all that was handed in to it since."""

    def __init__(self, workspace: Store, built: Retriever, clock: Callable[[], float] = time.time) -> None:
        """``built`` answers from the release alone."""
        self._workspace, self._built, self._clock = workspace, built, clock
        self._taken = Taken()
        self._version: Version | None = None
        self._search: release.Search | None = None
        self.retriever = built
        self.waited_s = 0.0
        """Seconds from the newest hand-in to its answers, by the clocks of two machines."""

    @property
    def problem(self) -> str | None:
        """Which hand-ins are not answered from, and why; None where all are."""
        return "; ".join(self._taken.problems[number] for number in sorted(self._taken.problems)) or None

    def look(self) -> bool:
        """Take what was handed in since the last look; True where answers change.

        Raises where the store cannot be read; then all is as it was.
        """
        numbers = deltas.numbers(self._workspace, self._built.release)
        if not self._taken.problems and (not numbers or numbers[-1] == self._taken.number):
            return False
        if self._version is None:
            self._version = Workspace(self._workspace).open("releases", self._built.release)
            self._search = release.search_of(self._version.store)
        taken = deltas.take(self._workspace, self._version, self._taken)
        if taken.segments.keys() == self._taken.segments.keys():
            self._taken = taken
            return False
        assert self._search is not None
        retriever = joined_to(self._built, taken, self._search)
        retriever.warm()
        self._taken, self.retriever = taken, retriever
        self.waited_s = max(self._clock() - max(one.at_s for one in taken.segments.values()), 0.0)
        return True


def joined_to(built: Retriever, taken: Taken, how: release.Search) -> Retriever:
    """The release that ``built`` answers from, with these hand-ins.

    A new item in a history stands there as the item whose vector is nearest to its own, of those near it that training
    has seen, since others say nothing in a history.
    """
    delta = joined.together(taken, built.table, how.dim)
    num_rows = built.table.num_rows
    new = delta.vectors[delta.rows >= num_rows]
    if len(new):
        near = built.index.search(new, np.full(len(new), min(_NEAR, num_rows), dtype=np.int64))[0]
        seen = (near >= 0) & (whole(built.table["train_count"]).to_numpy()[near] > 0)
        stand_ins = near[np.arange(len(near)), seen.argmax(1)]
    else:
        stand_ins = np.zeros(0, dtype=np.int64)
    index = JoinedIndex(built.index, num_rows, delta, how.metric)
    return built.joined(joined.updated(built.table, delta), index, Joined(delta.number, num_rows, stand_ins))
