"""Held-out users against a loop over the rows of their files, and the sample that a validation takes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raycl.config import PairRules
from raycl.data import held_out
from raycl.data.held_out import HeldOut
from raycl.storage import tables
from raycl.storage.store import Store
from tests.data.builders import part_table
from tests.data.reference import Packed

NUM_FILES, USERS_PER_FILE = 3, 40
User = tuple[int, tuple[int, ...], frozenset[int], frozenset[int]]
"""Row of the user table, history, met items, and targets."""


def rules(**settings: Any) -> PairRules:
    split = {"kind": "leave_last_n", "num_val": 3}
    return PairRules.model_validate({"split": split, "max_history": 4} | settings)


@pytest.fixture
def rows() -> list[list[Packed]]:
    """Users of each file: some without a history, some who met all their targets, and equal times."""
    generator = np.random.default_rng(3)
    found: list[list[Packed]] = []
    for number in range(NUM_FILES):
        found.append([])
        for place in range(USERS_PER_FILE):
            user = number * USERS_PER_FILE + place
            size = int(generator.integers(1, 9))
            items = tuple(map(int, generator.integers(0, 12, size)))
            times = tuple(sorted(map(int, generator.integers(0, 9, size))))
            context = int(generator.integers(0, size))
            found[-1].append(Packed(user, user, context, items, (1.0,) * size, times))
    return found


def write(store: Store, rows: list[list[Packed]]) -> tuple[tuple[str, int], ...]:
    for number, users in enumerate(rows):
        tables.write(store, f"part-{number}.parquet", part_table(users, "val"))
    return tuple((f"part-{number}.parquet", len(users)) for number, users in enumerate(rows))


def looped(rows: list[list[Packed]], settings: PairRules) -> Iterator[User]:
    for row in (row for users in rows for row in users):
        context, targets = row.items[: row.first_target], set(row.items[row.first_target :])
        earlier = [
            item for item, time in zip(context, row.times_ms, strict=False) if time < row.times_ms[row.first_target]
        ]
        history = tuple(earlier[::-1][: settings.max_history])
        if len(history) >= min(settings.min_history, settings.max_history) and targets - set(context):
            yield row.user_row, history, frozenset(context), frozenset(targets - set(context))


def users_of(found: HeldOut) -> list[User]:
    users = []
    for user in range(len(found)):
        one = slice(user, user + 1)
        met, wanted = found.met.of(one), found.wanted.of(one)
        assert not met.user.any()
        assert len(wanted) == len(set(wanted.item.tolist()))
        history = tuple(int(item) for item in found.history[user] if item >= 0)
        users.append(
            (int(found.state.user_row[user]), history, frozenset(met.item.tolist()), frozenset(wanted.item.tolist()))
        )
    return users


@pytest.mark.parametrize("settings", [{}, {"min_history": 3}, {"min_history": 0}, {"max_history": 1}])
def test_held_out_users_are_those_of_a_loop(tmp_path: Path, rows: list[list[Packed]], settings: Any) -> None:
    store = Store(str(tmp_path))
    found = held_out.read(store, write(store, rows), rules(**settings), "val", 1_000)
    expected = list(looped(rows, rules(**settings)))
    assert users_of(found) == expected
    assert 20 < len(expected) < NUM_FILES * USERS_PER_FILE


def test_the_cells_of_a_run_of_users_are_numbered_within_it(tmp_path: Path, rows: list[list[Packed]]) -> None:
    store = Store(str(tmp_path))
    met = held_out.read(store, write(store, rows), rules(), "val", 1_000).met
    run = met.of(slice(10, 15))
    every = list(zip(met.user.tolist(), met.item.tolist(), strict=True))
    assert [(user + 10, item) for user, item in zip(run.user.tolist(), run.item.tolist(), strict=True)] == [
        cell for cell in every if 10 <= cell[0] < 15
    ]


def test_a_sample_is_of_the_size_that_was_asked_for_and_grows_by_users(
    tmp_path: Path, rows: list[list[Packed]]
) -> None:
    """Hashes of ids choose, so a sample is not the first users of a file, and is part of a larger one."""
    store = Store(str(tmp_path))
    files = write(store, rows)
    every = users_of(held_out.read(store, files, rules(), "val", 1_000))
    samples = {most: users_of(held_out.read(store, files, rules(), "val", most)) for most in (5, 20)}
    for most, sample in samples.items():
        assert len(sample) == most
        assert sample == [user for user in every if user in sample] != every[:most]
    assert set(samples[5]) < set(samples[20])


def test_files_beyond_those_that_fill_the_sample_are_not_read(tmp_path: Path, rows: list[list[Packed]]) -> None:
    store = Store(str(tmp_path))
    files = write(store, rows)
    sample = users_of(held_out.read(store, files, rules(), "val", 10))
    (tmp_path / "part-2.parquet").unlink()
    assert users_of(held_out.read(store, files, rules(), "val", 10)) == sample
    with pytest.raises(FileNotFoundError):
        held_out.read(store, files, rules(), "val", 1_000)


def test_without_held_out_users_there_are_none(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    everything_met = [[Packed(1, 0, 2, (3, 4, 3), (1.0,) * 3, (1, 2, 3))]]
    for files in ((), (("absent.parquet", 0),), write(store, everything_met)):
        found = held_out.read(store, files, rules(), "val", 10)
        assert (len(found), found.history.shape, len(found.met), len(found.wanted)) == (0, (0, 4), 0, 0)
