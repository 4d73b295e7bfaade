"""A release that follows what is handed in to it answers as one that was built anew over the catalogue as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raycl.config import Config, ServingConfig
from raycl.data.columns import whole
from raycl.data.features import Encoders
from raycl.errors import RayclError
from raycl.index import deltas, release
from raycl.index.release import Release
from raycl.index.search import ShardedIndex
from raycl.model import inputs, weights
from raycl.serving import following, remote
from raycl.serving.api import Answer, Diversity, Query
from raycl.serving.current import Current
from raycl.serving.filters import And, Equals, Items, Not, Range
from raycl.serving.following import Following
from raycl.serving.remote import Parts
from raycl.serving.retriever import Retriever
from raycl.serving.shard import Shard
from raycl.storage import pointer
from raycl.storage.store import Store
from raycl.storage.versions import Version
from tests import tiny as builders
from tests.index.builders import built
from tests.index.handed import handed, moved, rows
from tests.serving.elsewhere import Elsewhere
from tests.serving.services import Noted

FIRST = builders.FIRST_ITEM
PATIENT = ServingConfig(rerank_ms=60_000.0)
"""So that no answer is by score, in place of diverse, on a machine that is slow."""
CHANGED, GONE, NEW = (FIRST + 4, FIRST + 9), (FIRST + 2, FIRST + 7), (900, 901, 902)


class Workspace:
    """A store with the release of the tiny workspace, which is current, and a reader of it."""

    def __init__(self, tiny: Config, store: Store) -> None:
        self.store, self.version = store, moved(tiny, store)
        pointer.publish(store, self.version.name)
        self.meter = Noted()
        self.current = Current(store, self.load, self.meter)
        assert self.current.poll()

    def load(self, name: str, *, quietly: bool = False) -> Retriever:
        return Retriever.of(release.load(self.store.under(f"releases/{name}")), PATIENT)

    def hand_in(self, items: pa.Table | None = None, removed: tuple[int, ...] = ()) -> int:
        return deltas.write(self.store, self.version, handed(items, removed))

    def answers(self, *queries: Query) -> list[Answer]:
        return self.current.retriever.retrieve(queries)


@pytest.fixture(params=["local", "s3"])
def workspace(request: pytest.FixtureRequest, tiny: Config, tmp_path: Path) -> Workspace:
    local = request.param == "local"
    return Workspace(tiny, Store(str(tmp_path)) if local else request.getfixturevalue("s3_store"))


on_disk = pytest.mark.parametrize("workspace", ["local"], indirect=True)


def hand_in_some(workspace: Workspace) -> None:
    """In three goes, of which the later ones take back what the first ones said."""
    workspace.hand_in(rows(*CHANGED, 900, 999, price=77.0), GONE[:1])
    workspace.hand_in(rows(901, CHANGED[1], price=5.0, category="rope"), (GONE[1], 999))
    workspace.hand_in(rows(902, price=1.0, category="lamp"))


def words() -> dict[int, dict[str, Any]]:
    """What ``hand_in_some`` says in the end of each item."""
    told = pa.concat_tables(
        [
            rows(CHANGED[0], 900, price=77.0),
            rows(901, CHANGED[1], price=5.0, category="rope"),
            rows(902, price=1.0, category="lamp"),
        ]
    )
    return {row["item_id"]: row for row in told.to_pylist()}


def rebuilt(tiny: Config, version: Version, words: Mapping[int, dict[str, Any]]) -> Retriever:
    """The release with its vectors and catalogue made again from the whole table as it is, every item by the tower."""
    assert tiny.items is not None
    loaded = release.load(version.store)
    ids = [*loaded.catalogue["item"].to_pylist(), *NEW]
    listed = {row["item_id"]: row for row in pq.read_table(tiny.items.uri).to_pylist()} | dict(words)
    table = pa.Table.from_pylist([listed[item] for item in ids], schema=rows().schema)
    encoders = Encoders.from_json(json.loads(version.store.read(release.ITEM_FEATURES_FILE)))
    tower = weights.load_item(version.store.under(release.ITEM_TOWER))
    number = torch.arange(len(ids))
    unknown = number >= builders.NUM_ITEMS
    given = inputs.from_table(encoders.encode(table), encoders, len(ids))
    with torch.inference_mode():
        vectors = tower(torch.where(unknown, 0, number), given, unknown).numpy()
    present = np.flatnonzero(~np.isin(ids, GONE))
    index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(vectors[present], present)
    counts = [*loaded.catalogue["train_count"].to_pylist(), *[0] * len(NEW)]
    shown = {name: whole(table[name]).cast(loaded.catalogue[name].type) for name in ("title", "category", "price")}
    catalogue = pa.table({"item": pa.array(ids), **shown, "train_count": pa.array(counts)})
    sides = loaded.user_tower, loaded.user_encoders, loaded.context_encoders
    return Retriever.of(Release(version.name, *sides, ShardedIndex([index], ()), catalogue), PATIENT)


RANGE = Range(op="range", column="price", min=2.0, max=80.0)
QUERIES = {
    "all": Query(history=[FIRST, FIRST + 11], k=40),
    "few": Query(history=[FIRST + 3], k=3),
    "user": Query(user={"country": "pe", "age": 31.0}, k=12),
    "popular": Query(k=33),
    "filter": Query(history=[FIRST + 5], k=20, filter=Equals(op="eq", column="category", value="rope")),
    "range": Query(history=[FIRST + 5], k=20, filter=RANGE),
    "deny": Query(
        history=[FIRST + 5], k=20, filter=And(op="and", of=(RANGE, Not(op="not", of=Items(op="items", ids=(901,)))))
    ),
    "allow": Query(history=[FIRST + 5], k=4, filter=Items(op="items", ids=(900, *GONE, *CHANGED))),
    "exclude": Query(history=[CHANGED[0], GONE[0], FIRST], k=40, exclude=[900, 999]),
    "mmr": Query(history=[FIRST + 1], k=9, diversity=Diversity(method="mmr", max_per={"category": 3})),
    "explain": Query(history=[FIRST + 1, GONE[1]], k=33, explain=True),
}


def plain(answer: Answer) -> dict[str, Any]:
    """All of an answer but which hand-in it knows of; numbers as floats that are nearly equal."""
    told = answer.model_dump(exclude={"delta"})
    return {name: nearly(value) for name, value in told.items()}


def nearly(value: Any) -> Any:
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-5, nan_ok=True)
    if isinstance(value, dict):
        return {name: nearly(one) for name, one in value.items()}
    return [nearly(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
@on_disk
def test_the_answer_is_that_of_a_release_that_was_built_anew(tiny: Config, workspace: Workspace, query: Query) -> None:
    before = workspace.answers(query)
    hand_in_some(workspace)
    assert workspace.current.poll()
    (found,) = workspace.answers(query)
    (expected,) = rebuilt(tiny, workspace.version, words()).retrieve([query])
    assert found.model_dump(exclude={"delta"}) == plain(expected)
    assert (found.delta, expected.delta, before[0].delta) == (3, 0, 0)
    assert [item.item_id for item in found.items] != [item.item_id for item in before[0].items] or query.k == 3


@pytest.mark.parametrize("item", [FIRST, *CHANGED, *NEW, *GONE, 999])
@on_disk
def test_so_are_the_items_like_one(tiny: Config, workspace: Workspace, item: int) -> None:
    hand_in_some(workspace)
    workspace.current.poll()
    truth = rebuilt(tiny, workspace.version, words())
    told = {"category": "rope"}
    found, expected = (
        one.answer([one.check_similar(item, told, Query(k=40))])[0] for one in (workspace.current.retriever, truth)
    )
    assert found.model_dump(exclude={"delta"}) == plain(expected)
    assert found.basis == ("features" if item in (*GONE, 999) else "item")


class Sharded(Workspace):
    """One whose shards are in two parts elsewhere."""

    def load(self, name: str, *, quietly: bool = False) -> Retriever:
        place = self.store.under(f"releases/{name}")
        head = release.load_head(place)
        self.elsewhere = Elsewhere([Shard(*release.load_part(place, part, 2)) for part in range(2)])
        index = remote.index_of(Parts(self.elsewhere, 2), head.catalogue.num_rows, head.index.depths)
        return Retriever.of(head, PATIENT, index)


def test_so_is_it_with_shards_elsewhere_whatever_is_filtered(tiny: Config, tmp_path: Path) -> None:
    workspace = Sharded(tiny, Store(str(tmp_path)))
    hand_in_some(workspace)
    workspace.current.poll()
    truth = rebuilt(tiny, workspace.version, words())
    for query in QUERIES.values():
        (found,), (expected,) = workspace.answers(query), truth.retrieve([query])
        assert found.model_dump(exclude={"delta"}) == plain(expected)


def test_without_a_part_filters_keep_what_the_others_and_the_hand_ins_have(tiny: Config, tmp_path: Path) -> None:
    workspace = Sharded(tiny, Store(str(tmp_path)))
    hand_in_some(workspace)
    workspace.current.poll()
    retriever = workspace.current.retriever
    lost = set(retriever.catalogue.ids(workspace.elsewhere.parts[1].facts().rows)) - {*CHANGED}
    for name in ("all", "filter", "range", "deny", "allow", "exclude"):
        query = QUERIES[name].model_copy(update={"k": 40})
        (whole,) = workspace.answers(query)
        workspace.elsewhere.silent = {1}
        with remote.noticed() as silent:
            (found,) = workspace.answers(query)
        workspace.elsewhere.silent = set()
        assert silent.parts == {1}
        kept = [item for item in whole.items if item.item_id not in lost]
        assert [item.item_id for item in found.items] == [item.item_id for item in kept]
        assert {*NEW, *CHANGED} & {item.item_id for item in kept}


@on_disk
def test_a_new_item_in_a_history_stands_there_as_the_known_one_that_is_nearest(workspace: Workspace) -> None:
    hand_in_some(workspace)
    workspace.current.poll()
    retriever = workspace.current.retriever
    own = set(workspace.load(workspace.version.name).catalogue.ids(np.arange(builders.NUM_ITEMS))) - {*GONE}
    alike = retriever.answer([retriever.check_similar(901, {}, Query(k=40))])[0]
    known = workspace.load(workspace.version.name)
    vector = retriever.index.vectors(retriever.catalogue.rows([901]).astype(np.int64))
    (nearest,) = known.catalogue.ids(known.index.search(vector, np.array([1]))[0][0])
    assert nearest in own | {*CHANGED}
    assert len(alike.items) == 30
    found, expected = workspace.answers(
        Query(history=[FIRST, 901], k=40, exclude_history=False, explain=True),
        Query(history=[FIRST, nearest], k=40, exclude_history=False, explain=True),
    )
    assert [(one.item_id, one.score) for one in found.items] == [(one.item_id, one.score) for one in expected.items]
    assert found.unknown_history == 0
    assert found.items[0].reasons is not None
    assert {one.item_id for one in found.items[0].reasons.events} == {FIRST, 901}
    (left_out,) = workspace.answers(Query(history=[901], k=40))
    assert 901 not in [item.item_id for item in left_out.items]
    assert nearest in [item.item_id for item in left_out.items]


@on_disk
def test_an_item_that_training_has_not_seen_stands_for_no_other(workspace: Workspace) -> None:
    workspace.hand_in(rows(900))
    taken, how = deltas.take(workspace.store, workspace.version), release.search_of(workspace.version.store)
    known = workspace.load(workspace.version.name)
    (nearest,) = following.joined_to(known, taken, how)._joined.stand_ins
    counts = whole(known.table["train_count"]).to_numpy().copy()
    counts[nearest] = 0
    place = known.table.column_names.index("train_count")
    known.table = known.table.set_column(place, "train_count", pa.array(counts))
    (other,) = following.joined_to(known, taken, how)._joined.stand_ins
    assert other not in (nearest, -1)
    assert counts[other] > 0


def test_what_is_handed_in_is_seen_at_the_next_look_and_loads_nothing_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(store: Store) -> Release:
        raise AssertionError("the release is loaded again")

    monkeypatch.setattr(release, "load", unwanted)
    assert not workspace.current.poll()
    workspace.hand_in(rows(900), (FIRST,))
    assert workspace.current.poll()
    assert not workspace.current.poll()
    (answer,) = workspace.answers(Query(k=40))
    ids = [item.item_id for item in answer.items]
    assert (answer.delta, 900 in ids, FIRST in ids, len(ids)) == (1, True, False, 30)
    (shown,) = [item for item in answer.items if item.item_id == 900]
    assert (shown.title, shown.display) == ("Told anew 900", {"category": "tea", "price": 3.0})
    assert workspace.meter.sum("raycl_swaps") == 1
    assert [value for name, value, _ in workspace.meter.told if name == "raycl_delta"][-1] == 1
    (waited_s,) = [value for name, value, _ in workspace.meter.told if name == "raycl_delta_seconds"]
    assert 0.0 <= waited_s < 60.0


def test_a_broken_hand_in_is_refused_by_name_and_what_was_before_goes_on(workspace: Workspace) -> None:
    workspace.hand_in(rows(900))
    workspace.current.poll()
    workspace.hand_in(rows(901))
    folder = deltas.folder_of(workspace.store, workspace.version.name)
    data = json.loads(folder.read("000002.json"))["data"]
    content = folder.read(data)
    folder.write(data, content[: len(content) // 2])
    for _ in range(2):
        assert not workspace.current.poll()
        assert workspace.current.problem is not None
        assert f"{data} has SHA-256" in workspace.current.problem
        (answer,) = workspace.answers(Query(k=40))
        assert (answer.delta, len(answer.items)) == (1, 31)
    assert [value for name, value, _ in workspace.meter.told if name == "raycl_release_stale"][-1] == 1.0
    workspace.hand_in(rows(902))
    assert workspace.current.poll()
    assert workspace.current.problem is not None
    assert [workspace.answers(Query(k=40))[0].delta, len(workspace.answers(Query(k=40))[0].items)] == [3, 32]
    deltas.withdraw(workspace.store, workspace.version, 2)
    assert workspace.current.poll()
    assert workspace.current.problem is None


@on_disk
def test_a_broken_hand_in_that_is_mended_is_taken(workspace: Workspace) -> None:
    workspace.hand_in(rows(900))
    folder = deltas.folder_of(workspace.store, workspace.version.name)
    told = folder.read("000001.json")
    folder.write("000001.json", b"{half")
    assert not workspace.current.poll()
    assert workspace.current.problem is not None
    folder.write("000001.json", told)
    assert workspace.current.poll()
    assert workspace.current.problem is None
    assert workspace.answers(Query(k=1))[0].delta == 1


@on_disk
def test_a_server_that_starts_later_answers_alike_from_the_first_look_on(workspace: Workspace) -> None:
    hand_in_some(workspace)
    workspace.current.poll()
    late = Current(workspace.store, workspace.load)
    assert late.poll()
    queries = list(QUERIES.values())
    found, expected = late.retriever.retrieve(queries), workspace.answers(*queries)
    assert [one.model_dump(exclude={"delta"}) for one in found] == [plain(one) for one in expected]
    assert {one.delta for one in found} == {3}
    assert not late.poll()


@on_disk
def test_another_release_has_none_of_the_hand_ins_before(tiny: Config, workspace: Workspace) -> None:
    """Not even those of the release that a server held before: they are of another tower."""
    workspace.hand_in(rows(900))
    workspace.current.poll()
    other = f"20300101T000000000-{'0' * 12}"
    folder = workspace.store.under(f"releases/{other}")
    for path in workspace.version.store.files():
        folder.write(path, workspace.version.store.read(path))
    manifest = folder.read("manifest.json").replace(workspace.version.name.encode(), other.encode())
    folder.write("manifest.json", manifest)
    pointer.publish(workspace.store, other)
    assert workspace.current.poll()
    (answer,) = workspace.answers(Query(k=40))
    assert (answer.release, answer.delta, len(answer.items)) == (other, 0, 30)


@on_disk
def test_a_store_that_fails_leaves_what_was_taken(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.hand_in(rows(900))
    workspace.current.poll()
    workspace.hand_in(rows(901))

    def broken(*_: object) -> None:
        raise RayclError("out of reach")

    monkeypatch.setattr(deltas, "take", broken)
    assert not workspace.current.poll()
    assert workspace.current.problem == "RayclError: out of reach"
    assert workspace.answers(Query(k=40))[0].delta == 1
    monkeypatch.undo()
    assert workspace.current.poll()
    assert workspace.current.problem is None


@on_disk
def test_a_reader_without_hand_ins_asks_the_store_for_one_listing(
    tiny: Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def names(self: Store, path: str, listing: Any = Store.names) -> Any:
        asked.append(f"{self.uri}/{path}")
        return listing(self, path)

    built_alone, name = Following(workspace.store, workspace.load(workspace.version.name)), built(tiny).name
    monkeypatch.setattr(Store, "names", names)
    assert not built_alone.look()
    assert asked == [f"{workspace.store.uri}/deltas/{name}/"]
