"""The page of a run: one file that is well-formed, needs no network, and says what was measured."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from raycl.tracking import item_map, run_figures, run_page
from raycl.tracking.story import Map
from tests.tracking.stories import evaluated, story, track

SECTIONS = [
    "Loss",
    "Validation",
    "Learning rate",
    "Throughput",
    "Norms",
    "Temperature",
    "Alignment and uniformity",
    "Map of the items",
    "Evaluation",
]


@pytest.fixture(scope="module")
def page() -> str:
    return run_page.render(story(), track(), evaluated())


def read(page: str) -> str:
    """Its text, without markup."""
    return " ".join(" ".join(ElementTree.fromstring(page.partition("\n")[2]).itertext()).split())


def test_every_section_is_there_with_its_figure(page: str) -> None:
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    assert page.count("<figure><svg") == len(SECTIONS) - 1
    assert len(set(re.findall(r' id="([^"]+)"', page))) == len(re.findall(r' id="([^"]+)"', page))


def test_it_is_one_well_formed_file_that_asks_for_nothing(page: str) -> None:
    ElementTree.fromstring(page.partition("\n")[2])
    assert re.findall(r"<(?:script|link|img|iframe)|@import|src=|url\((?!#)", page) == []
    assert {url for url in re.findall(r"https?://[^\"< ]+", page) if "www.w3.org" not in url} == set()


def test_it_says_what_was_measured(page: str) -> None:
    text = read(page)
    for words in ("Recall@20 0.2500 best validation", "Kept: step 120", "0.3125", "item_knn", "items.popularity=head"):
        assert words in text
    assert "The 40 most popular of 50 items" in text
    assert "75.0 % of the variance" in text
    assert "<b>a & b</b>|`\N{REPLACEMENT CHARACTER} 0 (100 events)" in text


def test_the_same_run_gives_the_same_bytes(page: str) -> None:
    assert run_page.render(story(), track(), evaluated()) == page


def test_a_run_without_validations_events_items_or_evaluation_has_a_page_too() -> None:
    bare = story(validation=(), map=Map(items=0, share=1.0, spots=()))
    text = read(run_page.render(bare, []))
    for words in ("Nothing was validated", "no items that may be retrieved", "raycl report makes it anew"):
        assert words in text
    read(run_page.render(story(), track()[:1]))


def test_the_plane_holds_the_two_directions_of_the_largest_variance() -> None:
    generator = np.random.default_rng(3)
    flat = generator.normal(size=(50, 2)) * (5.0, 2.0)
    turn = np.linalg.qr(generator.normal(size=(6, 6)))[0][:, :2]
    vectors = (flat @ turn.T + 7.0).astype(np.float32)
    points, share = item_map.plane(vectors)
    assert share == pytest.approx(1.0)
    apart = [np.linalg.norm(one[:, None] - one, axis=2) for one in (points, flat)]
    assert apart[0] == pytest.approx(apart[1], abs=1e-4)
    assert points[:, 0].var() > points[:, 1].var()
    noisy, share = item_map.plane(generator.normal(size=(500, 10)).astype(np.float32))
    variances = np.sort(np.linalg.svd(noisy, compute_uv=False) ** 2)
    assert 0.2 < share < 0.35
    assert variances[-1] == pytest.approx((noisy[:, 0] ** 2).sum())


@pytest.mark.parametrize("shape", [(1, 8), (5, 1)])
def test_vectors_that_span_no_plane_have_points_too(shape: tuple[int, int]) -> None:
    points, share = item_map.plane(np.ones(shape, dtype=np.float32))
    assert points.shape == (shape[0], 2)
    assert (points == 0).all()
    assert share == 1.0


def test_names_on_the_map_do_not_lie_on_each_other() -> None:
    svg = run_figures.item_map(story().map)
    root = ElementTree.fromstring(svg)
    kind = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{kind}circle")) == 40
    places = [(float(name.get("x", "")), float(name.get("y", ""))) for name in root.findall(f".//{kind}text")]
    assert 2 <= len(places) <= 28
    apart = [abs(x - u) > 100 or abs(y - v) > 12 for place, (x, y) in enumerate(places) for u, v in places[:place]]
    assert all(apart)
