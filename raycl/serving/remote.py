"""The index of a release whose shards are elsewhere: one call a part for all queries of a search, and one merge.

It answers as ``SelectiveIndex`` does over the same shards in one process. A part that does not answer in time is left
out of what is asked for in the same batch from then on, and the batch hears that its answers are partial.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raycl.errors import RayclError
from raycl.index.nearest import merge
from raycl.index.search import Depth, ShardedIndex
from raycl.index.selection import Rows, Selection
from raycl.index.selective import DIRECT_UP_TO, SelectiveIndex
from raycl.serving.checked import Ids, Scores, Vectors
from raycl.serving.shard import Bits, Facts

Question = tuple[int, str, tuple[Any, ...]]
"""A part's number, a method of ``Shard``, and its arguments."""
Ask = Callable[[Sequence[Question]], Sequence[Any]]
"""The answers to questions that are asked at once, None for one that did not come in time; blocks."""


@dataclass
class Lost:
    """Parts that did not answer, of all that a batch asked."""

    parts: set[int] = field(default_factory=set)


_LOST: ContextVar[Lost | None] = ContextVar("lost", default=None)


@contextlib.contextmanager
def noticed() -> Iterator[Lost]:
    """Within it parts may be lost; elsewhere that is an error."""
    lost = Lost()
    token = _LOST.set(lost)
    try:
        yield lost
    finally:
        _LOST.reset(token)


class NoShard(RayclError):
    """No part of the index answers, or one that is needed does not."""


class Parts:
    """The parts of one release."""

    def __init__(self, ask: Ask, num_parts: int) -> None:
        self._ask, self.num_parts = ask, num_parts

    def each(self, what: str, *how: Any) -> dict[int, Any]:
        """The same question to every part; NoShard where none answers."""
        return self.answers([(part, what, how) for part in range(self.num_parts)])

    def answers(self, questions: Sequence[Question], *, least: int = 1) -> dict[int, Any]:
        """By part; NoShard where fewer than ``least`` answer, and outside of ``noticed`` where one does not."""
        lost = _LOST.get()
        asked = [question for question in questions if lost is None or question[0] not in lost.parts]
        found = {question[0]: answer for question, answer in zip(asked, self._ask(asked), strict=True)}
        late = {part for part, answer in found.items() if answer is None}
        if late and lost is not None:
            lost.parts |= late
        answered = {part: answer for part, answer in found.items() if answer is not None}
        if questions and (len(answered) < least or (late and lost is None)):
            raise NoShard(f"of {self.num_parts} parts of the index {sorted(late) or 'none'} did not answer in time")
        return answered


def index_of(parts: Parts, num_rows: int, depths: Sequence[Depth]) -> RemoteIndex:
    """The index over all parts; NoShard where one does not say what it holds."""
    return RemoteIndex(parts, parts.each("facts"), num_rows, depths)


class _Searched(ShardedIndex):
    """The loop of ``ShardedIndex.search``, whose probes are elsewhere."""

    def __init__(self, parts: Parts, facts: dict[int, Facts], depths: Sequence[Depth]) -> None:
        super().__init__([], depths)
        self._parts, told = parts, [one for one in facts.values() if len(one.rows)]
        self._size = sum(len(one.rows) for one in told)
        self._reranks = any(one.reranks for one in told)
        self.num_lists = max((one.num_lists for one in told), default=0)
        self.is_graph = any(one.is_graph for one in told)
        self.most_effort = max((one.most_effort for one in told), default=0)
        self.metric = next((one.metric for one in told), self.metric)
        self._dim = next((one.dim for one in told), 0)

    def __len__(self) -> int:
        return self._size

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._dim

    def probe(
        self, queries: Vectors, k: int, effort: int, candidates: int = 0, among: Selection | None = None
    ) -> tuple[Ids, Scores]:
        """As ``ShardedIndex.probe``, of the parts that answer."""
        width = max(k, candidates) if self._reranks else k
        found = list(self._parts.each("probe", len(self), queries, width, effort, _bits(among)).values())
        ids, codes = (
            np.concatenate([one[0] for one in found], axis=1),
            np.concatenate([one[1] for one in found], axis=1),
        )
        if not self._reranks or not candidates:
            return merge(ids[None], codes[None], k)
        best, _ = merge(ids[None], codes[None], width)
        exact = np.concatenate([codes_or(one) for one in found], axis=1)
        chosen = np.stack([np.isin(row, kept) & (row >= 0) for row, kept in zip(ids, best, strict=True)])
        return merge(np.where(chosen, ids, -1)[None], exact[None], k)


def codes_or(answer: tuple[Ids, Scores, Scores | None]) -> Scores:
    """Scores by the stored vectors; of a part without items those that it has, of nothing."""
    return answer[1] if answer[2] is None else answer[2]


class RemoteIndex(SelectiveIndex):
    """``checked.Index`` over parts elsewhere; threads may share it."""

    def __init__(self, parts: Parts, facts: dict[int, Facts], num_rows: int, depths: Sequence[Depth]) -> None:
        """``facts``: of every part."""
        self._index: _Searched = _Searched(parts, facts, depths)
        self._parts, self._direct_up_to = parts, DIRECT_UP_TO
        self._part_of = np.full(num_rows, -1, dtype=np.int32)
        for part, told in facts.items():
            self._part_of[told.rows] = part
        self._all = Selection(self.present)

    def vectors(self, rows: Rows) -> Vectors:
        """The vectors (rows, dim) of these rows; NaN where a part does not answer, also where none does."""
        of_part = self._part_of[rows]
        places = {int(part): np.flatnonzero(of_part == part) for part in np.unique(of_part)}
        found = np.full((len(rows), self._index.dim), np.nan, dtype=np.float32)
        asked: list[Question] = [(part, "vectors", (rows[mine],)) for part, mine in places.items()]
        for part, vectors in self._parts.answers(asked, least=0).items():
            found[places[part]] = vectors
        return found

    def exactly(self, queries: Vectors, wanted: Ids, among: Selection) -> tuple[Ids, Scores]:
        """The best by the scores of all, of the parts that answer."""
        bits = None if among is self._all else _bits(among)
        found = list(self._parts.each("exactly", queries, wanted, bits).values())
        width = int(np.max(wanted, initial=0))
        ids, scores = (
            np.concatenate([one[0] for one in found], axis=1),
            np.concatenate([one[1] for one in found], axis=1),
        )
        ids, scores = merge(ids[None], scores[None], width)
        beyond = np.arange(width) >= wanted[:, None]
        ids[beyond], scores[beyond] = -1, -np.inf
        return ids, scores


def _bits(among: Selection | None) -> Bits | None:
    return None if among is None else np.packbits(among.kept)
