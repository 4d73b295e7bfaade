"""What the page of a night tells of search, and that it is a page whatever there is to tell."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raycl.config import IndexConfig
from raycl.index import night, night_page
from raycl.index.night import Night, Point, Shard, Stage
from raycl.index.plan import choose
from raycl.index.release_diff import Answers, Change, Diff, Moved
from raycl.index.search import Depth
from tests.index.builders import clustered, of_plan, sharded, unit_vectors

CHECK = {"name": "index recall@10", "value": 0.97, "bound": 0.95, "unit": "", "ceiling": False}
DIFF = Diff(
    before="earlier",
    after="later",
    num_items=(10, 11),
    num_in=30,
    num_out=1,
    items_in=tuple(range(20)),
    items_out=("<b>",),
    config=(Change("train.epochs", 1, None),),
    metrics=(Change("recall", 0.5, 0.625), Change("part", "test", "val")),
    answers=Answers(0.25, 40, 10, (Moved(7, "<i>Tea & rope</i>", 3, 9),)),
)
NIGHT = Night(
    release="later",
    raycl="0.1",
    stages=(Stage("pairs", "p", True, 1.5),),
    publish=True,
    reason="index recall@10 0.9700 >= 0.95",
    checks=(CHECK,),
    index="inverted lists",
    shards=(Shard(5, 100), Shard(6, 120)),
    curve=(Point(1, 0.5, 0.1, False), Point(2, 0.97, 0.2, True), Point(4, 1.0, 0.4, False)),
    k=10,
    num_queries=40,
    diff=DIFF,
    missing="",
)


def test_the_curve_of_lists_goes_by_doubling_to_all_of_them_where_nothing_is_missed() -> None:
    vectors = clustered(400, 8, 12)
    index = sharded(vectors, np.arange(400) % 3, 3, 12, 3)
    points = night.curve(index, unit_vectors(20, 8, 5), 10, Depth(10, 3, 0.9))
    assert [point.effort for point in points] == [1, 2, 3, 4, 8, 12]
    assert [point.effort for point in points if point.chosen] == [3]
    recalls = [point.recall for point in points]
    assert recalls == sorted(recalls)
    assert recalls[0] < 1.0 == recalls[-1]
    assert all(point.ms > 0.0 for point in points)


def test_an_exact_scan_is_one_point() -> None:
    index = sharded(unit_vectors(40, 8), np.arange(40) % 2, 2, 0, 1)
    (point,) = night.curve(index, unit_vectors(5, 8, 1), 10, Depth(10, 0, 1.0))
    assert (point.effort, point.recall, point.chosen) == (0, 1.0, True)


def test_a_graph_is_not_searched_as_deep_as_it_has_items() -> None:
    vectors = unit_vectors(600, 8)
    plan = choose(IndexConfig(kind="hnsw"), 600, 8, 0.9)
    index = of_plan(plan, vectors, np.zeros(600, dtype=np.int64), 1)
    points = night.curve(index, unit_vectors(5, 8, 1), 10, Depth(10, 0, 0.9, ef=10))
    assert points[-1].effort == 160
    assert [point.effort for point in points if point.chosen] == [10]


def read(told: Night) -> tuple[str, Any]:
    page = night_page.render(told)
    root = ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    return " ".join(" ".join(root.itertext()).split()), root


def test_a_page_tells_all_of_it_and_markup_in_titles_is_text() -> None:
    text, root = read(NIGHT)
    for said in (
        *("later", "earlier", "passed", "30 in, 1 out", "Agreement 25.00 %", "index recall@10 0.97 at least 0.95 kept"),
        *("recall 0.5 0.625 +0.125", "part test val", "2 (chosen) 0.9700 0.200", "1 6 120", "and 10 more", "<b>"),
        *("<i>Tea & rope</i> (7) 3 9 +6", "train.epochs 1 \N{EN DASH}", "pairs p worked 1.5", "inverted lists"),
    ):
        assert said in text
    assert len([element for element in root.iter() if element.tag.endswith("}svg")]) == 1
    assert night_page.render(NIGHT) == night_page.render(NIGHT)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (replace(NIGHT, diff=None), "No release was current before."),
        (replace(NIGHT, diff=None, missing="its file is cut"), "The release before cannot be read: its file is cut"),
        (replace(NIGHT, diff=replace(DIFF, answers=None)), "the pairs or the towers of this release are gone"),
        (replace(NIGHT, diff=replace(DIFF, config=())), "The same as before."),
        (replace(NIGHT, publish=False, checks=({**CHECK, "value": 0.5},)), "index recall@10 0.5 at least 0.95 missed"),
        (replace(NIGHT, curve=NIGHT.curve[:1]), "Effort Recall Milliseconds 1 0.5000 0.100"),
        (
            replace(NIGHT, diff=replace(DIFF, answers=Answers(1.0, 40, 10, ()))),
            "No item is in more or fewer answers than before.",
        ),
    ],
)
def test_a_page_says_what_there_is_not(told: Night, said: str) -> None:
    assert said in read(told)[0]
