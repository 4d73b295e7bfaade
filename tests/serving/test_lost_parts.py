"""What a batch answers while a part of the index is silent: nothing that rests on vectors that did not come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raycl.config import ServingConfig
from raycl.serving import remote
from raycl.serving.api import Answer, Query
from raycl.serving.remote import NoShard, Parts
from raycl.serving.retriever import Retriever
from raycl.serving.service import Service, Similar, Work
from tests.index.builders import sharded, unit_vectors
from tests.serving import builders, services
from tests.serving.builders import IDS
from tests.serving.elsewhere import Elsewhere

VECTORS = unit_vectors(len(IDS), len(IDS), 4)
PART = np.arange(len(IDS)) % 2
"""Of 101, 103 and 107 the first part has the vectors, of 102, 104 and 110 the second one."""
ALL = {"history": [101], "k": 6, "exclude_history": False}
LONG = 2.0**60


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere.of(sharded(VECTORS, PART, 2, 0, 0), 2, len(IDS))


@pytest.fixture
def running(elsewhere: Elsewhere, tmp_path: Path) -> Service:
    def load(name: str, *, quietly: bool) -> Retriever:
        index = remote.index_of(Parts(elsewhere, 2), len(IDS), ())
        parts = services.catalogue(), builders.encoders(), 3, builders.encode, index
        return Retriever(name, *parts, config=ServingConfig(rerank_ms=60_000.0))

    made = services.service(tmp_path, load)
    services.publish(made, tmp_path)
    return made


def ask(running: Service, body: dict[str, Any], similar: Similar | None = None) -> Answer:
    (outcome,) = running.answer_batch([Work([Query.model_validate(body)], [[]], LONG, similar)])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome[0]


def ids(answer: Answer) -> list[int | str]:
    return [item.item_id for item in answer.items]


def nearest(vector: builders.Vectors, rows: builders.Ids) -> list[int]:
    return [IDS[row] for row in rows[np.argsort(-(VECTORS[rows] @ vector), kind="stable")]]


def test_items_of_a_silent_part_do_not_count_among_those_that_stand_for_a_new_one(
    running: Service, elsewhere: Elsewhere
) -> None:
    """103 and 104 are of its kind, and lie in different parts."""
    new, every = Similar("new", {"kind": "rope"}), np.arange(len(IDS))
    whole = ask(running, {"k": 6}, new)
    expected = np.sort(VECTORS @ VECTORS[2:4].mean(0))[::-1]
    np.testing.assert_allclose([item.score for item in whole.items], expected, atol=1e-6)
    assert whole.degraded == []
    elsewhere.silent = {1}
    answer = ask(running, {"k": 6}, new)
    assert (answer.basis, answer.degraded) == ("features", ["shards"])
    assert ids(answer) == nearest(VECTORS[2], every[PART == 0])
    expected = np.sort(VECTORS[PART == 0] @ VECTORS[2])[::-1]
    np.testing.assert_allclose([item.score for item in answer.items], expected, atol=1e-6)


def test_an_item_whose_own_part_is_silent_is_asked_for_again_and_takes_no_other_request_with_it(
    running: Service, elsewhere: Elsewhere
) -> None:
    elsewhere.silent = {1}
    with pytest.raises(NoShard, match=r"the part of the index with the vectors of \[102\] does not answer in time"):
        ask(running, {"k": 2}, Similar(102, {}))
    works = [Work([Query(k=2)], [[]], LONG, Similar(item, {})) for item in (102, 103)]
    lost, kept = running.answer_batch(works)
    assert isinstance(lost, NoShard)
    assert not isinstance(kept, Exception)
    assert ids(kept[0]) == [one for one in nearest(VECTORS[2], np.flatnonzero(PART == 0)) if one != 103][:2]


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_items_whose_vectors_did_not_come_are_not_compared_with_others(
    running: Service, elsewhere: Elsewhere, method: str
) -> None:
    """The part answers the search, and no more when the vectors of what was found are asked for."""
    wish = {"method": method, "strength": 0.9}
    by_score = ids(ask(running, ALL))
    diverse = ask(running, {**ALL, "diversity": wish})
    assert ids(diverse) != by_score
    assert diverse.degraded == []
    elsewhere.silent_to = {(1, "vectors")}
    answer = ask(running, {**ALL, "diversity": wish})
    assert (ids(answer), answer.degraded) == (by_score, ["diversity", "shards"])


def test_popular_items_are_all_there_without_any_part_and_say_that_they_are_not_diverse(
    running: Service, elsewhere: Elsewhere
) -> None:
    popular = ids(ask(running, {"k": 6}))
    for elsewhere.silent in ({1}, {0, 1}):
        answer = ask(running, {"k": 6, "diversity": {"method": "mmr", "strength": 0.9}})
        assert (ids(answer), answer.degraded) == (popular, ["diversity"])


def test_items_whose_vectors_did_not_come_have_no_reasons_and_those_of_the_others_add_up(
    running: Service, elsewhere: Elsewhere
) -> None:
    elsewhere.silent_to = {(1, "vectors")}
    answer = ask(running, {**ALL, "history": [101, 104], "explain": True})
    assert answer.degraded == ["shards"]
    assert {item.item_id for item in answer.items if item.reasons is None} == {102, 104, 110}
    for item in answer.items:
        if item.reasons is not None:
            total = item.reasons.empty_history + sum(event.value for event in item.reasons.events)
            assert total == pytest.approx(item.score, abs=1e-5)
