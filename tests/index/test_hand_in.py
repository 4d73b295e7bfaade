"""Handing in to the current release: told what it does, and never lost to a publication meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import journey
from raycl.config import Config, Feature, ItemTable
from raycl.config_encode import PROJECTION, Encoding
from raycl.errors import InputError
from raycl.index import deltas, hand_in, releases
from raycl.index.hand_in import Summary
from raycl.storage import pointer
from raycl.storage.versions import Workspace
from tests import tiny as builders
from tests.index.builders import built
from tests.index.handed import handed, rows

FIRST = builders.FIRST_ITEM


@pytest.fixture
def workspace(tiny: Config, tmp_path: Path) -> Workspace:
    return journey.workspace(builders.copied(tiny, tmp_path))


def test_a_hand_in_says_what_it_does_to_the_release_as_it_is(tiny: Config, workspace: Workspace) -> None:
    name = built(tiny).name
    first = handed(rows(900, 901, FIRST), [FIRST + 1, 777])
    assert hand_in.to_current(workspace, first, dry_run=True) == Summary(name, 0, 2, 1, 1, 1)
    assert deltas.numbers(workspace.store, name) == []
    assert hand_in.to_current(workspace, first) == Summary(name, 1, 2, 1, 1, 1)
    again = handed(rows(900, FIRST + 1), [901, FIRST + 2, 777])
    assert hand_in.to_current(workspace, again) == Summary(name, 2, 1, 1, 2, 1)


def test_another_release_than_the_one_that_is_meant_is_refused(tiny: Config, workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"--release other is not current, .* is: items are handed in to the release"):
        hand_in.to_current(workspace, handed(rows(900)), "other")
    assert hand_in.to_current(workspace, handed(rows(900)), built(tiny).name).number == 1
    workspace.store.delete_folder(pointer.FOLDER)
    with pytest.raises(InputError, match="has no published release to hand items in to"):
        hand_in.to_current(workspace, handed(rows(900)))


def test_a_dry_run_refuses_what_a_hand_in_would(workspace: Workspace) -> None:
    for dry_run in (True, False):
        with pytest.raises(InputError, match="have no column 'price'"):
            hand_in.to_current(workspace, handed(rows(900).drop_columns(["price"])), dry_run=dry_run)


def test_what_is_handed_in_while_another_release_is_published_joins_that_one(
    pair_of_releases: tuple[Config, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair_of_releases
    workspace = journey.workspace(builders.copied(first, tmp_path))
    names = [built(one).name for one in (first, second)]

    def write(*arguments: Any, now: Any = deltas.write) -> int:
        number = int(now(*arguments))
        pointer.publish(workspace.store, names[1])
        return number

    monkeypatch.setattr(deltas, "write", write)
    assert hand_in.to_current(workspace, handed(rows(900))) == Summary(names[1], 1, 1, 0, 0, 0)
    assert [deltas.numbers(workspace.store, name) for name in names] == [[1], [1]]


def test_tables_are_read_as_the_config_tells_the_catalogue(tiny: Config, tmp_path: Path) -> None:
    extra = rows(900, 901).append_column("other", pa.array([1, 2]))
    pq.write_table(extra, tmp_path / "changed.parquet")
    pq.write_table(pa.table({"item_id": [FIRST, FIRST + 1]}), tmp_path / "gone.parquet")
    found = hand_in.read(tiny.items, str(tmp_path / "changed.parquet"), [], str(tmp_path / "gone.parquet"))
    assert sorted(found.items.column_names) == ["category", "item_id", "price", "title"]
    assert found.items["item_id"].to_pylist() == [900, 901]
    assert found.removed.to_pylist() == [FIRST, FIRST + 1]
    both = hand_in.read(tiny.items, None, ["105"], str(tmp_path / "gone.parquet"))
    assert (both.items.num_rows, both.removed.to_pylist()) == (0, [FIRST, FIRST + 1, 105])


def test_rows_that_are_no_items_are_removed_and_words_are_read_to_become_vectors(tmp_path: Path) -> None:
    path = str(tmp_path / "items.parquet")
    rows = {"id": [1, 2, 3], "name": ["red shoe", "blue shoe", None], "kind": ["shop", "test", "shop"]}
    pq.write_table(pa.table(rows), path)
    encoding = Encoding(column="said", of=("name",), model=PROJECTION, length=8)
    features = (Feature(column="said", kind="vector"),)
    items = ItemTable(
        uri=path, id_column="id", title_column=None, where={"kind": "shop"}, encode=(encoding,), features=features
    )
    found = hand_in.read(items, path, [], None)
    assert found.items["id"].to_pylist() == [1, 3]
    assert found.items["name"].to_pylist() == ["red shoe", None]
    assert found.encode == (encoding,)
    assert found.removed.to_pylist() == [2]
    with pytest.raises(InputError, match="--remove: ids of the tables are int64"):
        hand_in.read(items, path, ["abc"], None)


def test_without_an_items_section_items_can_only_be_removed(tiny: Config, workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"ITEMS=x\.parquet: the config has no items section"):
        hand_in.read(None, "x.parquet", [], None)
    given = hand_in.read(None, None, [str(FIRST)], None)
    assert hand_in.to_current(workspace, given) == Summary(built(tiny).name, 1, 0, 0, 1, 0)


@pytest.mark.parametrize(
    ("items", "problem"),
    [(None, "nothing is handed in: give a table"), ("nowhere.parquet", r"items\.uri=.*nowhere\.parquet")],
)
def test_what_cannot_be_read_is_refused(tiny: Config, tmp_path: Path, items: str | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        hand_in.read(tiny.items, str(tmp_path / items) if items else None, [], None)


def test_the_list_says_what_became_of_each(tiny: Config, workspace: Workspace) -> None:
    version = releases.named(workspace, None)
    for item in (900, 901, 902):
        deltas.write(workspace.store, version, handed(rows(item), [FIRST]))
    deltas.withdraw(workspace.store, version, 2)
    deltas.folder_of(workspace.store, version.name).write("000003.json", b"{half")
    found = hand_in.listed(workspace, version)
    assert [list(row.values()) for row in found if row["number"] != 3] == [
        [1, found[0]["at"], 1, 1, "answers"],
        [2, found[1]["at"], 1, 1, "taken back"],
        [4, found[3]["at"], 0, 0, "takes back 2"],
    ]
    assert found[2]["state"].startswith("refused: ")
    assert "000003.json cannot be read" in found[2]["state"]
