"""What a finished release answers some users of its own log: the end of ``raycl run``, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycl import journey, lineage
from raycl.config import Config
from raycl.config_answers import AnswersConfig
from raycl.data.handoff import Pairs
from raycl.index import release
from raycl.serving import client, shown
from raycl.serving.api import Answer, ItemId, Query
from raycl.serving.retriever import Retriever

_SHOWN_EVENTS = 5
_RERANK_MS = 60_000.0
"""Nobody waits for these answers, and what they show should not depend on how busy the machine is."""


@dataclass(frozen=True)
class Answered:
    """What one user was answered; ``met`` are titles of the newest events, or ids where there is none, newest first."""

    user: Any
    met: list[str]
    titles: Mapping[ItemId, str]
    """Of the items of the history that have one."""
    answer: Answer
    nearest: Answer | None
    """Without diversity, and of every item that may be answered with; None where none was asked for."""
    similar: Answer | None
    """Items like the newest event's."""

    def rows(self) -> list[dict[str, Any]]:
        """The answer's items for a table: with diversity the place without it, and with reasons the largest."""
        places = {item.item_id: place for place, item in enumerate(self.nearest.items, 1)} if self.nearest else {}
        rows = []
        for item, row in zip(self.answer.items, shown.rows(self.answer), strict=True):
            if self.nearest is not None:
                row["nearest"] = places.get(item.item_id, f"over {len(places)}")
            if item.reasons is not None and item.reasons.events:
                first = item.reasons.events[0]
                row |= {"because": self.titles.get(first.item_id, str(first.item_id)), "adds": first.value}
            rows.append(row)
        return rows

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "user": self.user,
            "met": self.met,
            "items": self.rows(),
            "similar": shown.rows(self.similar) if self.similar else [],
        }


def ask(config: Config) -> list[Answered]:
    """What the finished release of ``config`` answers the users that ``config.answers`` asks for, in this process."""
    asked = config.answers
    if asked is None:
        return []
    workspace = journey.workspace(config)
    pairs = Pairs.of(lineage.pairs(config, workspace))
    patient = config.serving.model_copy(update={"rerank_ms": _RERANK_MS})
    retriever = Retriever.of(release.load(lineage.release(config, workspace).store), patient)
    users = pairs.some_users("test", asked.users) or pairs.some_users("train", asked.users)
    return [_answered(retriever, user, client.query_of(pairs, str(user)), asked) for user in users]


def _answered(retriever: Retriever, user: Any, known: Query, asked: AnswersConfig) -> Answered:
    query = known.model_copy(update={"k": asked.k, "explain": asked.explain, "diversity": asked.diversity})
    (answer,) = retriever.retrieve([query])
    nearest = None
    if asked.diversity is not None:
        pool = asked.diversity.candidates or 20 * asked.k
        (nearest,) = retriever.retrieve([known.model_copy(update={"k": pool})])
    similar = None
    if asked.similar and known.history:
        like = retriever.check_similar(known.history[-1], {}, Query(k=asked.k))
        (similar,) = retriever.answer([like])
    titles = _titles(retriever, known.history)
    newest = known.history[: -_SHOWN_EVENTS - 1 : -1]
    return Answered(user, [titles.get(one, str(one)) for one in newest], titles, answer, nearest, similar)


def _titles(retriever: Retriever, items: Sequence[ItemId]) -> dict[ItemId, str]:
    rows = retriever.catalogue.rows(items)
    described = retriever.catalogue.shown(rows[rows >= 0].astype(np.int64))
    return {item: title for item, title, _ in described if title is not None}
