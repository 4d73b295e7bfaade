"""What joins a release between two nights: as it was handed in, the newest word of each item, or refused by name."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raycl import journey
from raycl.config import Config, ItemTable
from raycl.errors import CorruptRelease, InputError
from raycl.index import delta_search, deltas, release, search
from raycl.index.deltas import Delta
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace
from tests import tiny as builders
from tests.index.builders import built, sharded, unit_vectors
from tests.storage.builders import DyingStore, Killed, together

FIRST = builders.FIRST_ITEM
QUERIES = np.eye(8, dtype=np.float32)


@pytest.fixture(params=["local", "s3"])
def handed(request: pytest.FixtureRequest, tiny: Config, tmp_path: Path) -> tuple[Store, Version, ItemTable]:
    """A workspace, on disk and on S3, with one release; and how its items are told."""
    source = journey.workspace(tiny).store
    store = Store(str(tmp_path / "workspace")) if request.param == "local" else request.getfixturevalue("s3_store")
    version = built(tiny)
    for path in version.store.files():
        store.write(f"releases/{version.name}/{path}", source.read(f"releases/{version.name}/{path}"))
    assert tiny.items is not None
    return store, Workspace(store).open("releases", version.name), tiny.items


def items(*ids: int, price: float = 3.0, category: str = "tea") -> pa.Table:
    """Rows of the catalogue's table."""
    titles = [f"Told anew {item}" for item in ids]
    return pa.table({"item_id": ids, "title": titles, "category": [category] * len(ids), "price": [price] * len(ids)})


def answers(version: Version, delta: Delta, k: int) -> tuple[Any, Any]:
    return delta_search.nearest(release.load(version.store).index, delta, QUERIES, k)


def test_without_segments_a_release_answers_as_it_did(handed: tuple[Store, Version, ItemTable]) -> None:
    store, version, _ = handed
    delta = deltas.load(store, version)
    assert (delta.number, deltas.newest(store, version.name)) == (0, 0)
    expected = release.load(version.store).index.search(QUERIES, 10)
    for found, right in zip(answers(version, delta, 10), expected, strict=True):
        np.testing.assert_array_equal(found, right)


def test_items_that_are_handed_in_as_they_were_answer_as_they_did(
    tiny: Config, handed: tuple[Store, Version, ItemTable]
) -> None:
    """The whole catalogue over again: every vector is in the delta, and none of the index is left."""
    store, version, how = handed
    assert deltas.write(store, version, how, pq.read_table(how.uri), []) == 1
    delta = deltas.load(store, version)
    np.testing.assert_array_equal(delta.hidden, np.arange(builders.NUM_ITEMS))
    expected, of_expected = release.load(version.store).index.search(QUERIES, builders.NUM_ITEMS)
    found, scores = answers(version, delta, builders.NUM_ITEMS)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, of_expected, atol=1e-6)


def test_new_items_follow_removed_ones_are_gone_and_changed_ones_have_their_new_words(
    handed: tuple[Store, Version, ItemTable],
) -> None:
    store, version, how = handed
    catalogue = release.load(version.store).catalogue["item"].to_pylist()
    deltas.write(store, version, how, items(900, 901), [FIRST])
    deltas.write(store, version, how, items(FIRST + 1, 901, price=9.0, category="rope"), [900])
    deltas.write(store, version, how, items(), [FIRST + 2])
    delta = deltas.load(store, version)
    assert delta.number == deltas.newest(store, version.name) == 3
    assert sorted(catalogue[row] for row in delta.hidden) == [FIRST, FIRST + 1, FIRST + 2]
    assert delta.rows.tolist() == [catalogue.index(FIRST + 1), builders.NUM_ITEMS + 1]
    assert delta.shown.to_pydict() == {
        "item": [FIRST + 1, 901],
        "title": [f"Told anew {FIRST + 1}", "Told anew 901"],
        "category": ["rope", "rope"],
        "price": [9.0, 9.0],
    }
    found, _ = answers(version, delta, 40)
    held = set(range(builders.NUM_ITEMS)) - {catalogue.index(FIRST), catalogue.index(FIRST + 2)}
    for row in found:
        assert set(row[row >= 0].tolist()) == held | {builders.NUM_ITEMS + 1}
        assert (row >= 0).sum() == builders.NUM_ITEMS - 1
    deltas.write(store, version, how, items(900), [])
    assert deltas.load(store, version).rows.tolist()[1:] == [builders.NUM_ITEMS, builders.NUM_ITEMS + 1]


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "l2"])
def test_the_answer_is_that_of_an_index_that_was_built_with_the_delta(kind: str) -> None:
    """On random vectors, of which some are replaced, some removed, and some are new."""
    generator = np.random.default_rng(3)
    for case in range(8):
        base, dim, k = 60, 16, int(generator.integers(1, 90))
        vectors, more = unit_vectors(base, dim, case), unit_vectors(20, dim, 100 + case)
        hidden = np.sort(generator.choice(base, int(generator.integers(0, base + 1)), replace=False))
        changed = hidden[: len(hidden) // 2][:10]
        rows = np.concatenate([changed, base + np.arange(20 - len(changed))])
        num_lists = 4 if kind == "ivf_flat" else 0
        index = l2(vectors) if kind == "l2" else sharded(vectors, np.arange(base) % 3, 3, num_lists, num_lists or 1)
        delta = Delta(1, hidden, rows, more, pa.table({"item": rows}))
        left = np.setdiff1d(np.arange(base), hidden)
        every, ids = np.concatenate([vectors[left], more]), np.concatenate([left, rows])
        by_id = np.argsort(ids)
        queries = unit_vectors(7, dim, 200 + case)
        places, expected = search.exact(every[by_id], queries, k, index.metric)
        found, scores = delta_search.nearest(index, delta, queries, k)
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        np.testing.assert_array_equal(found, np.where(places < 0, -1, ids[by_id][places]))


def l2(vectors: Any) -> search.ShardedIndex:
    index: Any = faiss.IndexIDMap2(faiss.IndexFlatL2(vectors.shape[1]))
    index.add_with_ids(vectors, np.arange(len(vectors)))
    return search.ShardedIndex([index], [])


def test_hand_ins_at_once_are_all_seen(handed: tuple[Store, Version, ItemTable]) -> None:
    store, version, how = handed
    calls = [functools.partial(deltas.write, store, version, how, items(900 + number), []) for number in range(4)]
    assert sorted(together(calls)) == [1, 2, 3, 4]
    assert sorted(deltas.load(store, version).shown["item"].to_pylist()) == [900, 901, 902, 903]


@pytest.mark.parametrize("handed", ["local"], indirect=True)
def test_a_hand_in_that_is_killed_is_seen_whole_or_not_at_all(handed: tuple[Store, Version, ItemTable]) -> None:
    store, version, how = handed
    for num_changes in range(5):
        folder = MortalWorkspace(store.uri, [None] * num_changes)
        try:
            deltas.write(folder, version, how, items(900), [FIRST])
            break
        except Killed:
            assert deltas.load(store, version).number == 0
    assert num_changes == 2
    assert deltas.load(store, version).shown["item"].to_pylist() == [900]


class MortalWorkspace(DyingStore):
    """One whose folders die with it."""

    def under(self, path: str) -> Store:
        return DyingStore(f"{self.uri}/{path}", self.left)


@pytest.mark.parametrize(
    ("given", "removed", "problem"),
    [
        (items(900).drop_columns(["price"]), [], "have no column 'price'; they have item_id, title, category"),
        (items(900).drop_columns(["item_id"]), [], "have no column 'item_id'"),
        (items(900, 900), [], "item 900 is handed in 2 times"),
        (items(FIRST), [FIRST], f"item {FIRST} is handed in 2 times"),
        (items(900), ["tea"], "removed holds string, ids of the release are int64"),
        (items(900).set_column(0, "item_id", pa.array([None], pa.int64())), [], "item_id holds 1 ids that are null"),
    ],
)
@pytest.mark.parametrize("handed", ["local"], indirect=True)
def test_what_cannot_be_taken_is_refused_and_leaves_nothing(
    handed: tuple[Store, Version, ItemTable], given: pa.Table, removed: list[Any], problem: str
) -> None:
    store, version, how = handed
    with pytest.raises(InputError, match=problem):
        deltas.write(store, version, how, given, removed)
    assert store.files(deltas.FOLDER) == []


def test_a_segment_that_is_altered_missing_or_of_another_tower_is_refused_by_name(
    handed: tuple[Store, Version, ItemTable],
) -> None:
    store, version, how = handed
    deltas.write(store, version, how, items(900), [])
    folder = store.under(f"{deltas.FOLDER}/{version.name}")
    told = json.loads(folder.read("000001.json"))
    content = folder.read(told["data"])
    folder.write(told["data"], content[:-1])
    with pytest.raises(CorruptRelease, match=rf"{told['data']} has SHA-256 .*, 000001.json says"):
        deltas.load(store, version)
    folder.write(told["data"], content)
    folder.write("000001.json", json.dumps(told | {"item_tower": "0" * 64}).encode())
    with pytest.raises(CorruptRelease, match=r"000001\.json has vectors of item tower 000000000000, the release has"):
        deltas.load(store, version)
    folder.write("000001.json", b"{}")
    with pytest.raises(CorruptRelease, match=r"000001\.json cannot be read"):
        deltas.load(store, version)


def test_a_new_item_lies_where_the_tower_puts_what_it_has_not_seen(handed: tuple[Store, Version, ItemTable]) -> None:
    """Two new items of the same features have one vector, and a known one of these features another."""
    store, version, how = handed
    known = pq.read_table(how.uri)
    like = known.filter(pc.equal(known["item_id"], FIRST + 3))
    both = pa.concat_tables([like.set_column(0, "item_id", pa.array([item])) for item in (900, 901)])
    deltas.write(store, version, how, pa.concat_tables([like, both]), [])
    vectors = deltas.load(store, version).vectors
    np.testing.assert_array_equal(vectors[1], vectors[2])
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
