"""A release and what joined it: of each item the newest word, and rows where the release's own stay in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raycl.config import Config
from raycl.index import deltas, joined, release
from raycl.index.joined import Delta
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Version
from tests import tiny as builders
from tests.index.handed import handed, moved, rows

FIRST = builders.FIRST_ITEM


@pytest.fixture
def extended(tiny: Config, tmp_path: Path) -> tuple[Store, Version]:
    store = Store(str(tmp_path))
    return store, moved(tiny, store)


def together(store: Store, version: Version) -> Delta:
    catalogue = tables.read(version.store, release.CATALOGUE_FILE)
    return joined.together(deltas.take(store, version), catalogue, 8)


def test_without_hand_ins_nothing_joins(extended: tuple[Store, Version]) -> None:
    delta = together(*extended)
    catalogue = tables.read(extended[1].store, release.CATALOGUE_FILE)
    assert (delta.number, len(delta.hidden), len(delta.rows), delta.vectors.shape) == (0, 0, 0, (0, 8))
    assert str(joined.updated(catalogue, delta).to_pylist()) == str(catalogue.to_pylist())  # one price is no number


def test_new_items_follow_removed_ones_are_gone_and_changed_ones_have_their_new_words(
    extended: tuple[Store, Version],
) -> None:
    store, version = extended
    catalogue = tables.read(version.store, release.CATALOGUE_FILE)
    ids = catalogue["item"].to_pylist()
    deltas.write(store, version, handed(rows(900, 901), [FIRST]))
    deltas.write(store, version, handed(rows(FIRST + 1, 901, price=9.0, category="rope"), [900]))
    deltas.write(store, version, handed(removed=[FIRST + 2, 777]))
    delta = together(store, version)
    assert delta.number == 3
    assert sorted(ids[row] for row in delta.hidden) == [FIRST, FIRST + 1, FIRST + 2]
    assert (np.diff(delta.hidden) > 0).all()
    assert delta.rows.tolist() == [ids.index(FIRST + 1), builders.NUM_ITEMS]
    assert delta.shown.to_pydict() == {
        "item": [FIRST + 1, 901],
        "title": [f"Told anew {FIRST + 1}", "Told anew 901"],
        "category": ["rope", "rope"],
        "price": [9.0, 9.0],
    }
    updated = joined.updated(catalogue, delta)
    assert updated.schema == catalogue.schema
    assert updated["item"].to_pylist() == [*ids, 901]
    changed = ids.index(FIRST + 1)
    for row, (now, before) in enumerate(zip(updated.to_pylist(), catalogue.to_pylist(), strict=False)):
        if row == changed:
            assert now == before | {"title": f"Told anew {FIRST + 1}", "category": "rope", "price": 9.0}
        else:
            assert str(now) == str(before)
    assert updated.to_pylist()[-1] == {
        **{"item": 901, "title": "Told anew 901", "category": "rope", "price": 9.0, "train_count": 0}
    }


def test_the_word_that_was_said_last_holds_and_not_the_highest_number(extended: tuple[Store, Version]) -> None:
    """What is carried over from another release keeps its time."""
    store, version = extended
    deltas.write(store, version, handed(rows(900, price=2.0)))
    deltas.write(store, version, handed(rows(900, 901, price=1.0)), at_s=100.0)
    assert together(store, version).shown.select(["item", "price"]).to_pylist() == [
        {"item": 900, "price": 2.0},
        {"item": 901, "price": 1.0},
    ]


def test_what_is_taken_back_leaves_the_word_before(extended: tuple[Store, Version]) -> None:
    store, version = extended
    deltas.write(store, version, handed(rows(900, price=1.0)))
    deltas.write(store, version, handed(rows(900, price=2.0), [FIRST]))
    deltas.withdraw(store, version, 2)
    delta = together(store, version)
    assert (delta.number, delta.hidden.tolist(), delta.shown["price"].to_pylist()) == (3, [], [1.0])


def test_an_item_that_is_removed_and_comes_again_is_there(extended: tuple[Store, Version]) -> None:
    store, version = extended
    deltas.write(store, version, handed(removed=[FIRST]))
    deltas.write(store, version, handed(rows(FIRST)))
    delta = together(store, version)
    assert delta.shown["item"].to_pylist() == [FIRST]
    assert delta.hidden.tolist() == delta.rows.tolist()
