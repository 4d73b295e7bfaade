"""The search of a release as the evaluation asks for it, so that its lists are measured beside the exact ones."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from raycl.index import release
from raycl.index.nearest import Ids, Vectors
from raycl.index.release import Release
from raycl.storage.store import Store


@dataclass(frozen=True)
class ReleaseSearch:
    """Loads and verifies the release where it is first called; goes to other processes as its place alone."""

    store: Store

    def __call__(self, users: Vectors, k: int) -> Ids:
        """Vocabulary rows (users, k) of the items that the index finds, the best first, -1 where it finds no more.

        Raises CorruptRelease for a release that was altered.
        """
        return _loaded(self.store).index.search(users, k)[0]


@functools.lru_cache(maxsize=1)
def _loaded(store: Store) -> Release:
    return release.load(store)
