"""Items that are handed in: taken as the release would have them, or refused by column and item."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raycl.config import Config
from raycl.data.columns import whole
from raycl.errors import InputError
from raycl.index import delta_items, release
from raycl.index.delta_items import Handed
from raycl.index.selective import SelectiveIndex
from raycl.model import weights
from raycl.storage.store import Store
from tests import tiny as builders
from tests.index.builders import built
from tests.index.handed import catalogue, handed, moved, rows

FIRST = builders.FIRST_ITEM


def vectors(table: pa.Table) -> Any:
    return np.array(table["vector"].to_pylist(), dtype=np.float32)


def test_the_catalogue_over_again_has_the_vectors_of_the_index(tiny: Config) -> None:
    loaded = release.load(built(tiny).store)
    table, given = delta_items.table(built(tiny), handed(catalogue(tiny)))
    assert str(given.to_pylist()) == str(catalogue(tiny).to_pylist())  # one price is no number
    places = {item: row for row, item in enumerate(loaded.catalogue["item"].to_pylist())}
    order = np.array([places[item] for item in table["item"].to_pylist()])
    expected = SelectiveIndex(loaded.index, builders.NUM_ITEMS).vectors(order)
    np.testing.assert_allclose(vectors(table), expected, atol=1e-6)
    shown = loaded.catalogue.drop_columns(["train_count"]).take(pa.array(order))
    assert str(table.select(shown.column_names).to_pylist()) == str(shown.to_pylist())


def test_so_have_all_when_few_are_embedded_at_once(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_table, _ = delta_items.table(built(tiny), handed(catalogue(tiny)))
    monkeypatch.setattr(delta_items, "_AT_ONCE", 7)
    np.testing.assert_allclose(
        vectors(delta_items.table(built(tiny), handed(catalogue(tiny)))[0]), vectors(whole_table), atol=1e-6
    )


def test_a_new_item_lies_where_the_tower_puts_what_it_has_not_seen(tiny: Config) -> None:
    """Two new items of the same features have one vector, and a known one of these features another."""
    known = catalogue(tiny)
    like = known.filter(pc.equal(known["item_id"], FIRST + 3))
    both = pa.concat_tables([like.set_column(0, "item_id", pa.array([item])) for item in (900, 901)])
    found = vectors(delta_items.table(built(tiny), handed(pa.concat_tables([like, both])))[0])
    np.testing.assert_array_equal(found[1], found[2])
    assert not np.allclose(found[0], found[1], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (handed(rows(900).drop_columns(["price"])), "have no column 'price'; they have item_id, title, category"),
        (handed(rows(900).drop_columns(["title"])), "have no column 'title'"),
        (handed(rows(900).drop_columns(["item_id"])), "have no column 'item_id'"),
        (handed(rows(900, 900)), "item 900 is handed in 2 times"),
        (handed(rows(FIRST), [FIRST]), f"item {FIRST} is handed in 2 times"),
        (handed(removed=["tea"]), "removed holds string, ids of the release are int64"),
        (
            handed(rows(900).set_column(0, "item_id", pa.array([None], pa.int64()))),
            "item_id holds 1 ids that are null",
        ),
        (
            handed(rows(900).set_column(2, "category", pa.array([[1, 2]]))),
            r"category",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(tiny: Config, given: Handed, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        delta_items.table(built(tiny), given)


@pytest.fixture
def blind(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tower that gives every second item no vector."""

    class Blind:
        def __call__(self, rows: Any, given: Any, unknown: Any) -> Any:
            made = load_item(folder)(rows, given, unknown)
            made[1::2] = 0.0
            return made

    load_item, folder = weights.load_item, built(tiny).store.under(release.ITEM_TOWER)
    monkeypatch.setattr(weights, "load_item", lambda _: Blind())


def test_an_item_without_a_vector_is_refused_or_left_out(tiny: Config, blind: None) -> None:
    given = handed(rows(900, 901, 902), [FIRST])
    with pytest.raises(InputError, match="item 901 has a vector that is null or not finite: leave it out"):
        delta_items.table(built(tiny), given)
    table, kept = delta_items.table(built(tiny), replace(given, forgiving=True))
    assert table["item"].to_pylist() == [900, 902, FIRST]
    assert whole(kept["item_id"]).to_pylist() == [900, 902]


def test_of_another_release_what_is_not_told_is_unknown(tiny: Config) -> None:
    given = handed(rows(900, price=float("nan")))
    expected = delta_items.table(built(tiny), given)[0]
    less = replace(given, items=given.items.drop_columns(["price"]), forgiving=True)
    found = delta_items.table(built(tiny), less)[0]
    np.testing.assert_allclose(vectors(found), vectors(expected), atol=1e-6)
    assert found["price"].to_pylist() == [None]
    assert found.drop_columns(["price", "vector"]) == expected.drop_columns(["price", "vector"])


def test_items_may_be_removed_without_a_table_of_others(tiny: Config, tmp_path: Path) -> None:
    version = moved(tiny, Store(str(tmp_path)))
    nothing = pa.table({"item_id": pa.array([], pa.int64())})
    table, given = delta_items.table(version, Handed("item_id", None, nothing, ["101"]))
    assert table.select(["item", "removed", "title"]).to_pylist() == [{"item": FIRST, "removed": True, "title": None}]
    assert given.num_rows == 0
