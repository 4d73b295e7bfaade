"""Parts of an index in this process that answer as if they were elsewhere, and may be made silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raycl.index.search import ShardedIndex
from raycl.serving.remote import Question
from raycl.serving.shard import Shard


class Elsewhere:
    """``remote.Ask`` of some parts; it keeps the questions."""

    def __init__(self, parts: Sequence[Shard]) -> None:
        self.parts = parts
        self.silent: set[int] = set()
        self.silent_to: set[tuple[int, str]] = set()
        """Parts and questions: other questions these answer."""
        self.asked: list[list[Question]] = []

    @classmethod
    def of(cls, whole: ShardedIndex, num_parts: int, num_rows: int) -> Elsewhere:
        """An index in so many parts, as a release would be."""
        shards = [(whole.shards[part::num_parts], whole.stored[part::num_parts]) for part in range(num_parts)]
        return cls([Shard(ShardedIndex(held, whole.depths, stored), num_rows) for held, stored in shards])

    def __call__(self, questions: Sequence[Question]) -> list[Any]:
        self.asked.append(list(questions))
        return [self._answer(*question) for question in questions]

    def _answer(self, part: int, what: str, how: tuple[Any, ...]) -> Any:
        if part in self.silent or (part, what) in self.silent_to:
            return None
        return getattr(self.parts[part], what)(*how)
