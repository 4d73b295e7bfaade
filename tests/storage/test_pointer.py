"""Publications are numbered, none is lost, and the highest number is current."""

from __future__ import annotations

import functools
import json

import pytest

from raycl.errors import RayclError
from raycl.storage import pointer
from raycl.storage.pointer import FOLDER, Pointer
from raycl.storage.store import Store
from tests.storage.builders import together


class OverwritingStore(Store):
    """A store such as one that ignores ``If-None-Match``."""

    def create(self, path: str, content: bytes) -> bool:
        self.write(path, content)
        return True


class RefusingStore(Store):
    """A store that creates nothing."""

    def create(self, path: str, content: bytes) -> bool:
        self.write(path, content)
        return False


def test_before_the_first_publication_nothing_is_current(store: Store) -> None:
    assert pointer.current(store) is None


def test_the_last_publication_is_current(store: Store) -> None:
    for number, release in enumerate(("one", "two", "three", "one"), 1):
        assert pointer.publish(store, release) == Pointer(number, release)
        assert pointer.current(store) == Pointer(number, release)
    assert store.names(FOLDER) == [f"{number:06d}.json" for number in (1, 2, 3, 4)]


def test_the_highest_number_is_current_also_where_it_sorts_before_others(store: Store) -> None:
    for number in (999_999, 1_000_000, 2):
        store.write(f"{FOLDER}/{number:06d}.json", json.dumps({"release": f"r{number}"}).encode())
    assert pointer.current(store) == Pointer(1_000_000, "r1000000")
    assert pointer.publish(store, "next") == Pointer(1_000_001, "next")


def test_files_that_are_no_pointers_are_passed_over(store: Store) -> None:
    pointer.publish(store, "one")
    for name in (".probe-1", "000009.json.bak", "x000009.json", "9.json"):
        store.write(f"{FOLDER}/{name}", b"no pointer")
    assert pointer.current(store) == Pointer(1, "one")


def test_publishing_what_is_current_changes_nothing(store: Store) -> None:
    first = pointer.publish(store, "one")
    before = store.files()
    assert pointer.publish(store, "one") == first
    assert store.files() == before


def test_history_has_every_publication_in_order_with_its_time(store: Store) -> None:
    assert pointer.history(store) == []
    for name in ("a", "b", "a"):
        pointer.publish(store, name)
    found = pointer.history(store)
    assert [one.pointer for one in found] == [Pointer(1, "a"), Pointer(2, "b"), Pointer(3, "a")]
    assert found[0].at_s <= found[1].at_s <= found[2].at_s


def test_racing_publishers_get_numbers_of_their_own_and_none_is_lost(store: Store) -> None:
    releases = [f"release-{number}" for number in range(8)]
    got = together([functools.partial(pointer.publish, Store(store.uri), release) for release in releases])
    assert [found.release for found in got] == releases
    assert sorted(found.number for found in got) == list(range(1, 9))
    for found in got:
        assert json.loads(store.read(f"{FOLDER}/{found.number:06d}.json")) == {"release": found.release}
    assert len(store.names(FOLDER)) == 8  # and no probe is left
    assert pointer.current(store) == max(got, key=lambda found: found.number)


@pytest.mark.parametrize("kind", [OverwritingStore, RefusingStore])
def test_a_store_that_cannot_create_exclusively_is_refused(store: Store, kind: type[Store]) -> None:
    with pytest.raises(RayclError, match=rf"^workspace={store.uri} overwrites a file .* honours If-None-Match"):
        pointer.publish(kind(store.uri), "one")
    assert store.names(FOLDER) == []
    assert pointer.current(store) is None
