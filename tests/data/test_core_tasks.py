"""The k-core in rounds over buckets against plain Python on the whole log."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.config import PairRules
from raycl.data import core_tasks
from raycl.data.core_tasks import Core, Rounds
from raycl.data.rules import Events
from raycl.storage.store import Store
from raycl.storage.versions import Draft, Record, Workspace
from tests.data import reference, whole
from tests.data.builders import few_cases, in_this_process
from tests.data.reference import Event, Id

NUM_ITEMS = 9
Log = list[tuple[int, int]]
"""User and item of each event."""


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    whole.without_ray(monkeypatch)


def draft(folder: Path) -> Draft:
    return Workspace(Store(str(folder))).draft("pairs", "0" * 64)


def rounds(made: Draft, num_buckets: int, min_item: int, min_user: int, most: int) -> Rounds:
    return Rounds(made, num_buckets, NUM_ITEMS, min_item, min_user, most)


def in_buckets(log: Log, num_buckets: int) -> Callable[[int], Events]:
    """The events of one bucket's users, sorted, the users numbered anew."""

    def cleaned(bucket: int) -> Events:
        mine = sorted(event for event in log if event[0] % num_buckets == bucket)
        _, user = np.unique([user for user, _ in mine], return_inverse=True)
        item = np.array([item for _, item in mine], dtype=np.int32)
        size = len(mine)
        zeros = np.zeros(size, dtype=np.int64)
        return Events(
            user.astype(np.int64), item, zeros, zeros.astype(np.float32), zeros.astype(np.uint8), zeros.astype(np.int8)
        )

    return cleaned


def naive(log: Log, min_item: int, min_user: int, most: int) -> reference.Core:
    by_user: dict[Id, list[Event]] = defaultdict(list)
    for user, item in log:
        by_user[user].append(Event(user, item, 0))
    return reference.core(by_user, PairRules(min_item_events=min_item, min_user_events=min_user, core_rounds=most))


@few_cases
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, NUM_ITEMS - 1)), max_size=50),
    st.sampled_from([1, 3]),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([1, 2, 3, 30]),
)
def test_what_is_left_is_what_one_process_leaves(
    log: Log, num_buckets: int, min_item: int, min_user: int, most: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = draft(Path(folder))
        core = rounds(made, num_buckets, min_item, min_user, most).run(in_buckets(log, num_buckets), in_this_process)
        expected = naive(log, min_item, min_user, most)
        assert {int(item) for item in np.flatnonzero(~core_tasks.read(made.store, core.rounds))} == expected.rare
        assert (core.is_fixed, core.num_dropped) == (expected.is_fixed, len(expected.rare))
        made.lease.release()


CHAIN: Log = [(user, item) for user in range(8) for item in (user, user + 1)]
"""Each round takes one user and one item from either end."""


@pytest.mark.parametrize(
    ("most", "is_fixed", "num_rounds"), [(1, False, 1), (3, False, 3), (4, True, 4), (30, True, 4)]
)
def test_rounds_that_were_too_few_say_so(tmp_path: Path, most: int, is_fixed: bool, num_rounds: int) -> None:
    core = rounds(draft(tmp_path), 2, 2, 2, most).run(in_buckets(CHAIN, 2), in_this_process)
    assert (core.is_fixed, core.rounds) == (is_fixed, num_rounds)
    assert core.num_dropped == 2 * num_rounds


def test_users_alone_may_be_what_the_first_round_drops(tmp_path: Path) -> None:
    log = [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 2), (4, 2)]  # item 2 is rare once user 4 is out
    made = draft(tmp_path)
    assert rounds(made, 1, 2, 2, 9).run(in_buckets(log, 1), in_this_process) == Core(2, True, 1)
    assert not core_tasks.read(made.store, 2)[2]


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_killed_run_goes_on_from_its_finished_counts(tmp_path: Path) -> None:
    made = draft(tmp_path)
    done: list[int] = []

    def until_killed(_: str, task: Callable[[int], Record], num_tasks: int) -> list[dict[str, Any]]:
        for bucket in range(num_tasks):
            if len(done) == 5:  # in the middle of the second round
                raise Killed
            task(bucket)
            done.append(bucket)
        return []

    cleaned = in_buckets(CHAIN, 3)
    with pytest.raises(Killed):
        rounds(made, 3, 2, 2, 9).run(cleaned, until_killed)
    counted = {path: path.stat().st_ino for path in tmp_path.rglob("counts-*.parquet")}
    assert len(counted) == 5

    def never(_: int) -> Events:
        raise AssertionError("the events of every bucket were left by the run that was killed")

    resumed = rounds(made, 3, 2, 2, 9).run(never, in_this_process)
    assert all(path.stat().st_ino == inode for path, inode in counted.items())
    other = draft(tmp_path / "undisturbed")
    assert resumed == rounds(other, 3, 2, 2, 9).run(cleaned, in_this_process)
    assert (core_tasks.read(made.store, resumed.rounds) == core_tasks.read(other.store, resumed.rounds)).all()
