"""What a person is told of an answer beside its items."""

from __future__ import annotations

import typing

import pytest

from raycl.serving import shown
from raycl.serving.api import Answer, Basis, Item

ANSWER = Answer(release="r1", items=[], short=False, matched=0, unknown_history=0)


@pytest.mark.parametrize("basis", typing.get_args(Basis))
def test_every_basis_is_told_with_what_it_means(basis: Basis) -> None:
    (line,) = shown.lines(ANSWER.model_copy(update={"basis": basis}), 0)
    assert line.startswith(f"basis: {basis} (ordered by ")


def test_what_there_was_no_time_for_is_told_and_nothing_of_a_whole_answer() -> None:
    degraded = ANSWER.model_copy(update={"degraded": ["diversity", "shards"]})
    assert [line.partition(":")[0] for line in shown.lines(ANSWER, 0)] == ["basis"]
    assert shown.lines(degraded, 0)[1] == (
        "degraded: diversity, shards (it was not made diverse; some shards did not answer in time, so that items may be"
        " missing)"
    )


def test_unknown_ids_and_the_end_of_the_items_are_told() -> None:
    lines = shown.lines(ANSWER.model_copy(update={"unknown_history": 2, "short": True}), 3)
    assert lines[1:] == [
        "2 of 3 ids of the history are not in this release",
        "no more items are left to answer with",
    ]


def test_items_are_rows_with_their_displayed_columns() -> None:
    item = Item(item_id=7, score=0.5, title="Tea", display={"price": 1.5})
    assert shown.rows(ANSWER.model_copy(update={"items": [item]})) == [
        {"item_id": 7, "title": "Tea", "score": 0.5, "price": 1.5}
    ]
