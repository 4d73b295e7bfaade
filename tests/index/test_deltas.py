"""Hand-ins between two nights: numbered, whole or not at all, and refused by name where they are not as they were."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from raycl.config import Config
from raycl.errors import InputError
from raycl.index import deltas
from raycl.index.deltas import Taken
from raycl.storage.store import Store
from raycl.storage.versions import Version
from tests import tiny as builders
from tests.index.handed import handed, moved, rows
from tests.storage.builders import DyingStore, Killed, together

FIRST = builders.FIRST_ITEM


@pytest.fixture(params=["local", "s3"])
def extended(request: pytest.FixtureRequest, tiny: Config, tmp_path: Path) -> tuple[Store, Version]:
    """A workspace, on disk and on S3, with one release."""
    store = Store(str(tmp_path / "workspace")) if request.param == "local" else request.getfixturevalue("s3_store")
    return store, moved(tiny, store)


on_disk = pytest.mark.parametrize("extended", ["local"], indirect=True)


def test_hand_ins_are_numbered_and_read_as_they_were_written(extended: tuple[Store, Version]) -> None:
    store, version = extended
    assert (deltas.numbers(store, version.name), deltas.take(store, version)) == ([], Taken())
    assert deltas.write(store, version, handed(rows(900, FIRST), [FIRST + 1])) == 1
    assert deltas.write(store, version, handed(removed=[FIRST])) == 2
    assert deltas.numbers(store, version.name) == [1, 2]
    taken = deltas.take(store, version)
    assert (taken.number, taken.holding, taken.problems) == (2, [1, 2], {})
    assert taken.tables[1].select(["item", "removed", "price"]).to_pydict() == {
        "item": [900, FIRST, FIRST + 1],
        "removed": [False, False, True],
        "price": [3.0, 3.0, None],
    }
    first, second = taken.segments[1], taken.segments[2]
    assert (first.release, first.num_items, first.num_removed) == (version.name, 2, 1)
    assert first.at_s <= second.at_s
    assert deltas.given_of(store, version.name, 1, first) == rows(900, FIRST)
    assert second.given == ""


def test_only_what_is_new_is_read_again(extended: tuple[Store, Version], monkeypatch: pytest.MonkeyPatch) -> None:
    store, version = extended
    deltas.write(store, version, handed(rows(900)))
    before = deltas.take(store, version)
    deltas.write(store, version, handed(rows(901)))
    read: list[str] = []

    def listen(self: Store, path: str, once: object = Store.read) -> bytes:
        read.append(path)
        return once(self, path)  # type: ignore[operator, no-any-return]

    monkeypatch.setattr(Store, "read", listen)
    after = deltas.take(store, version, before)
    assert after.number == 2
    assert read == ["000002.json", after.segments[2].data]
    assert after == replace(deltas.take(store, version), tables=after.tables)


def test_a_later_hand_in_is_the_newer_word_whatever_the_clocks_say(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    version = moved(tiny, store)
    for now in (2_000.0, 1_000.0):
        monkeypatch.setattr("raycl.index.deltas.time.time", lambda now=now: now)
        deltas.write(store, version, handed(rows(900)))
    deltas.write(store, version, handed(rows(901)), at_s=500.0)
    taken = deltas.take(store, version)
    assert [taken.segments[number].at_s for number in (1, 2, 3)] == [2_000.0, 2_000.0, 500.0]
    assert taken.holding == [3, 1, 2]


def test_hand_ins_at_once_are_all_seen(extended: tuple[Store, Version]) -> None:
    store, version = extended
    calls = [functools.partial(deltas.write, store, version, handed(rows(900 + number))) for number in range(4)]
    assert sorted(together(calls)) == [1, 2, 3, 4]
    found = [item for table in deltas.take(store, version).tables.values() for item in table["item"].to_pylist()]
    assert sorted(found) == [900, 901, 902, 903]


@on_disk
def test_a_hand_in_that_is_killed_is_seen_whole_or_not_at_all(extended: tuple[Store, Version]) -> None:
    store, version = extended
    for num_changes in range(6):
        folder = MortalWorkspace(store.uri, [None] * num_changes)
        try:
            deltas.write(folder, version, handed(rows(900), [FIRST]))
            break
        except Killed:
            assert deltas.take(store, version) == Taken()
    assert num_changes == 3
    assert deltas.take(store, version).tables[1]["item"].to_pylist() == [900, FIRST]


class MortalWorkspace(DyingStore):
    """One whose folders die with it."""

    def under(self, path: str) -> Store:
        return DyingStore(f"{self.uri}/{path}", self.left)


def test_a_hand_in_that_is_altered_missing_or_of_another_release_is_left_out_by_name(
    extended: tuple[Store, Version],
) -> None:
    store, version = extended
    deltas.write(store, version, handed(rows(900)))
    deltas.write(store, version, handed(rows(901)))
    folder = deltas.folder_of(store, version.name)
    told = json.loads(folder.read("000001.json"))
    content = folder.read(told["data"])

    def problem() -> str:
        taken = deltas.take(store, version)
        assert (taken.number, taken.holding, list(taken.problems)) == (2, [2], [1])
        return taken.problems[1]

    folder.write(told["data"], content[:-1])
    assert f"{told['data']} has SHA-256 " in problem()
    assert "hand the items in again" in problem()
    folder.delete(told["data"])
    assert f"{told['data']} of 000001.json is missing" in problem()
    folder.write(told["data"], content)
    folder.write("000001.json", json.dumps(told | {"item_tower": "0" * 64}).encode())
    assert "000001.json extends release" in problem()
    assert "by item tower 000000000000, this is" in problem()
    folder.write("000001.json", json.dumps(told | {"release": "another"}).encode())
    assert "000001.json extends release another by" in problem()
    folder.write("000001.json", b"{}")
    assert "000001.json cannot be read" in problem()
    folder.write("000001.json", json.dumps(told).encode())
    assert deltas.take(store, version).holding == [1, 2]


def test_a_hand_in_that_is_taken_back_is_not_there_and_a_broken_one_no_problem(
    extended: tuple[Store, Version],
) -> None:
    store, version = extended
    deltas.write(store, version, handed(rows(900)))
    deltas.write(store, version, handed(rows(901)))
    folder = deltas.folder_of(store, version.name)
    folder.write("000002.json", b"{}")
    before = deltas.take(store, version)
    assert deltas.withdraw(store, version, 2) == 3
    for known in (None, before):
        taken = deltas.take(store, version, known)
        assert (taken.number, taken.holding, taken.problems) == (3, [1], {})
    assert deltas.withdraw(store, version, 1) == 4
    assert deltas.take(store, version).holding == []
    for number in (1, 2, 3, 5):
        with pytest.raises(InputError, match=rf"has no hand-in {number} to take back; it has none: see 'raycl delta"):
            deltas.withdraw(store, version, number)
    assert deltas.write(store, version, handed(rows(900))) == 5
    assert deltas.take(store, version).holding == [5]


def test_a_hand_in_of_nothing_is_none(extended: tuple[Store, Version]) -> None:
    store, version = extended
    assert deltas.write(store, version, handed()) == 0
    assert deltas.numbers(store, version.name) == []
