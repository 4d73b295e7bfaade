"""Some shards of a release, in a process of their own: what they answer, a whole batch at a time."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from raycl.index.search import ShardedIndex
from raycl.index.selection import Rows, Selection
from raycl.index.selective import SelectiveIndex
from raycl.serving.checked import Ids, Scores, Vectors

Bits = npt.NDArray[np.uint8]
"""Rows that may come, eight a byte, the first in the highest bit."""


@dataclass(frozen=True)
class Facts:
    """What a caller must know of a part, once."""

    rows: Rows
    """Those that it holds a vector of."""
    num_lists: int
    is_graph: bool
    most_effort: int
    metric: str
    dim: int
    reranks: bool


class Shard:
    """One part; threads may share it."""

    def __init__(self, index: ShardedIndex, num_rows: int) -> None:
        """``num_rows``: of the vocabulary."""
        self._index, self._num_rows = index, num_rows
        self._selective = SelectiveIndex(index, num_rows)

    def facts(self) -> Facts:
        """What a caller must know."""
        index = self._index
        rows = np.flatnonzero(self._selective.present)
        dim = index.dim if index.shards else 0
        return Facts(rows, index.num_lists, index.is_graph, index.most_effort, index.metric, dim, bool(index.stored))

    def probe(
        self, whole: int, queries: Vectors, k: int, effort: int, among: Bits | None
    ) -> tuple[Ids, Scores, Scores | None]:
        """``ShardedIndex.candidates`` of this part, and their scores by the stored vectors where there are some.

        ``whole``: items of all parts together.
        """
        if not self._index.shards:
            return *_nothing(len(queries), k), None
        self._index.whole = whole
        found, scores = self._index.candidates(queries, k, effort, self._among(among))
        return found, scores, self._index.exact_scores(queries, found) if self._index.stored else None

    def exactly(self, queries: Vectors, wanted: Ids, among: Bits | None) -> tuple[Ids, Scores]:
        """``SelectiveIndex.exactly`` of this part."""
        if not self._index.shards:
            return _nothing(len(queries), int(np.max(wanted, initial=0)))
        kept = self._among(among) or Selection(self._selective.present)
        return self._selective.exactly(queries, wanted, kept)

    def vectors(self, rows: Rows) -> Vectors:
        """The vectors of these rows, which it holds."""
        if not self._index.shards:
            return np.zeros((0, 0), dtype=np.float32)
        return self._selective.vectors(rows)

    def _among(self, bits: Bits | None) -> Selection | None:
        if bits is None:
            return None
        return self._selective.selection(np.unpackbits(bits, count=self._num_rows).astype(np.bool_))


def _nothing(num_queries: int, k: int) -> tuple[Ids, Scores]:
    return np.full((num_queries, k), -1, dtype=np.int64), np.full((num_queries, k), -np.inf, dtype=np.float32)


class LoadShard(Protocol):
    """The part of a release by its name; raises where the release cannot be trusted."""

    def __call__(self, name: str, *, quietly: bool) -> Shard:
        """``quietly``: another release answers meanwhile."""


class Shards:
    """A part of the newest releases that were asked for; threads may share it."""

    def __init__(self, load: LoadShard, most: int = 2) -> None:
        """``most`` are kept, since one answers while the next is loaded."""
        self._load, self._most = load, most
        self._held: OrderedDict[str, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, release: str) -> Shard:
        """The part of this release, which is loaded where it is not here; raises as ``load`` does."""
        found = self._held.get(release)
        if found is not None:
            with contextlib.suppress(KeyError):  # gone this moment; the one that was asked for last goes last
                self._held.move_to_end(release)
            return found
        with self._lock:
            if release not in self._held:
                self._held[release] = self._load(release, quietly=bool(self._held))
                while len(self._held) > self._most:
                    self._held.popitem(last=False)
            return self._held[release]

    def ask(self, release: str, what: str, *how: Any) -> Any:
        """What the part of a release answers: ``what`` is a method of ``Shard``."""
        if what not in ("facts", "probe", "exactly", "vectors"):
            raise ValueError(f"what={what}: a shard answers no such question")
        return getattr(self.of(release), what)(*how)
