"""An answer as a person reads it: a table of its items, and what else there is to know of it."""

from __future__ import annotations

from typing import Any

from raycl.serving.api import Answer

_BASIS = {
    "history": "the history",
    "features": "what is known of user and request, without a history",
    "item": "one item, as 'more like this'",
    "popularity": "popularity alone, since nothing is known of the user",
}
_DEGRADED = {
    "diversity": "it was not made diverse",
    "shards": "some shards did not answer in time, so that items may be missing",
}


def rows(answer: Answer) -> list[dict[str, Any]]:
    """The answer's items as flat rows, for a table."""
    return [
        {"item_id": item.item_id, "title": item.title, "score": item.score, **item.display} for item in answer.items
    ]


def lines(answer: Answer, num_history: int) -> list[str]:
    """Where the order comes from, what there was no time for, and what of ``num_history`` ids was not known."""
    said = [f"basis: {answer.basis} (ordered by {_BASIS[answer.basis]})"]
    if answer.degraded:
        said.append(
            f"degraded: {', '.join(answer.degraded)} ({'; '.join(_DEGRADED[what] for what in answer.degraded)})"
        )
    if answer.unknown_history:
        said.append(f"{answer.unknown_history} of {num_history} ids of the history are not in this release")
    if answer.short:
        said.append("no more items are left to answer with")
    return said
