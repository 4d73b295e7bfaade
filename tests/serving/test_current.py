"""Which release answers while others are published, broken or withdrawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycl.errors import CorruptRelease, RayclError
from raycl.serving.current import Current
from raycl.serving.retriever import Retriever
from raycl.storage import pointer
from raycl.storage.store import Store
from tests.serving.builders import retriever
from tests.serving.services import Noted


class Loader:
    """Loads any release but the broken ones, and remembers what it was asked for, and for which quietly."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.quietly: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, name: str, *, quietly: bool) -> Retriever:
        self.asked.append(name)
        self.quietly += [name] if quietly else []
        if name in self.broken:
            raise CorruptRelease(f"{name}/search.json is missing")
        return retriever(release=name)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_before_the_first_release_there_is_no_answer(store: Store) -> None:
    current = Current(store, Loader())
    assert not current.poll()
    assert current.problem is None
    with pytest.raises(RayclError, match=r"workspace=.* has no published release: run raycl publish"):
        _ = current.retriever


def test_the_newest_release_is_taken(store: Store) -> None:
    load = Loader()
    current = Current(store, load)
    for name in ("r1", "r2"):
        pointer.publish(store, name)
        assert current.poll()
        assert current.retriever.release == name
    pointer.publish(store, "r3")
    pointer.publish(store, "r4")
    assert current.poll()
    assert load.asked == ["r1", "r2", "r4"]
    assert load.quietly == ["r2", "r4"]  # while another answers


def test_the_release_that_answers_is_not_loaded_again(store: Store) -> None:
    load = Loader()
    current = Current(store, load)
    pointer.publish(store, "r1")
    assert current.poll()
    before = current.retriever
    assert not current.poll()
    assert current.retriever is before
    assert load.asked == ["r1"]


def test_a_reader_keeps_the_release_that_it_took(store: Store) -> None:
    current = Current(store, Loader())
    pointer.publish(store, "r1")
    current.poll()
    taken = current.retriever
    pointer.publish(store, "r2")
    current.poll()
    assert (taken.release, current.retriever.release) == ("r1", "r2")


def test_a_release_that_cannot_be_loaded_leaves_the_old_one_and_says_why(store: Store) -> None:
    load = Loader()
    load.broken = {"r2"}
    current = Current(store, load)
    pointer.publish(store, "r1")
    current.poll()
    pointer.publish(store, "r2")
    assert not current.poll()
    assert current.retriever.release == "r1"
    assert current.problem == "CorruptRelease: r2/search.json is missing"
    load.broken = set()
    assert not current.poll()  # left alone once
    assert current.poll()
    assert current.retriever.release == "r2"
    assert not current.problem


def test_a_broken_release_is_loaded_less_and_less_often(store: Store) -> None:
    load = Loader()
    load.broken = {"r1"}
    current = Current(store, load)
    pointer.publish(store, "r1")
    attempts = []
    for _ in range(300):
        before = len(load.asked)
        assert not current.poll()
        assert current.problem == "CorruptRelease: r1/search.json is missing"
        attempts.append(len(load.asked) - before)
    tried = [place for place, attempt in enumerate(attempts) if attempt]
    assert tried == [0, 2, 5, 10, 19, 36, 69, 134, 199, 264]


def test_a_problem_is_logged_when_it_changes_and_no_more(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    load = Loader()
    load.broken = {"r2", "r3"}
    current = Current(store, load)
    pointer.publish(store, "r1")
    current.poll()
    caplog.clear()
    for name in ("r2", "r3"):
        pointer.publish(store, name)
        for _ in range(20):
            current.poll()
    assert [record.getMessage() for record in caplog.records] == [
        f"release {name} cannot be loaded; r1 goes on answering" for name in ("r2", "r3")
    ]


def test_without_a_release_before_the_log_says_that_nothing_answers(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    load = Loader()
    load.broken = {"r1"}
    pointer.publish(store, "r1")
    Current(store, load).poll()
    (record,) = caplog.records
    assert record.getMessage() == "release r1 cannot be loaded; nothing answers"


def test_a_publication_after_a_broken_one_is_loaded_at_once(store: Store) -> None:
    load = Loader()
    load.broken = {"r1"}
    current = Current(store, load)
    pointer.publish(store, "r1")
    for _ in range(4):
        current.poll()
    pointer.publish(store, "r2")
    assert current.poll()
    load.broken = set()
    pointer.publish(store, "r1")  # published anew, so it is another publication
    assert current.poll()
    assert current.retriever.release == "r1"


def test_a_broken_first_release_is_the_reason_for_no_answer(store: Store) -> None:
    load = Loader()
    load.broken = {"r1"}
    current = Current(store, load)
    pointer.publish(store, "r1")
    assert not current.poll()
    with pytest.raises(RayclError, match=r"r1/search\.json is missing"):
        _ = current.retriever


def test_going_back_to_the_release_that_answers_ends_the_problem(store: Store) -> None:
    load = Loader()
    load.broken = {"r2"}
    current = Current(store, load)
    for name in ("r1", "r2"):
        pointer.publish(store, name)
        current.poll()
    assert current.problem is not None
    pointer.publish(store, "r1")
    assert not current.poll()
    assert current.problem is None


def test_a_store_that_fails_for_a_moment_is_a_problem_for_a_moment(store: Store) -> None:
    current = Current(store, Loader())
    pointer.publish(store, "r1")
    current.poll()
    broken = Path(store.full(f"{pointer.FOLDER}/000002.json"))
    broken.write_text("{half")
    assert not current.poll()
    assert current.problem is not None
    assert "JSONDecodeError" in current.problem
    assert current.retriever.release == "r1"
    broken.unlink()
    assert not current.poll()
    assert current.problem is None


def test_swaps_failures_and_the_age_of_the_release_are_measured(store: Store) -> None:
    """The alert goes on with the first failure and off with the next release that is taken."""
    load, meter = Loader(), Noted()
    load.broken = {"r2"}
    current = Current(store, load, meter)
    alerts = []
    for name in ("20200101T000000000-0123456789ab", "r2", "r3"):
        pointer.publish(store, name)
        current.poll()
        alerts.append([value for told, value, _ in meter.told if told == "raycl_release_stale"][-1])
    assert alerts == [0.0, 1.0, 0.0]
    assert (meter.sum("raycl_swaps"), meter.sum("raycl_swap_failures")) == (2, 1)
    assert len([name for name, _, _ in meter.told if name == "raycl_swap_seconds"]) == 2
    ages = [value for name, value, _ in meter.told if name == "raycl_release_age_seconds"]
    assert len(ages) == 2
    assert min(ages) > 365 * 86_400
