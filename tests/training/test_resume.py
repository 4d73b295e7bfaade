"""A run whose processes are killed or told to end, at any step and in any number, ends as an undisturbed one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from safetensors.torch import load_file

from raycl.storage.store import Store
from raycl.training import checkpoint
from tests.training import crew
from tests.training.builders import assert_close, assert_equal_bits
from tests.training.crew import BATCH, ENDED, EPOCHS, STEPS, STOPPED, End

KILLED = -9


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process that nothing disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    assert crew.train(folder, 1) == {ENDED}
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("both")
    assert crew.train(folder, 2) == {ENDED}
    return folder


def newest_step(folder: Path) -> int:
    """Of the newest complete checkpoint; 0 without any."""
    return checkpoint.newest_step(Store(str(folder / "towers")))


def assert_each_row_once(folder: Path) -> None:
    """In each epoch, by the last execution of each step, every pair was read once; the last few fill no batch."""
    taken, every = crew.last_taken(folder), crew.every_pair(folder)
    assert list(taken) == [*range(EPOCHS * STEPS)]
    for epoch in range(EPOCHS):
        read = [pair for number in range(epoch * STEPS, (epoch + 1) * STEPS) for pair in taken[number].pairs]
        assert len(read) == len(set(read)) == STEPS * BATCH
        assert set(read) <= every
        assert len(every) - len(read) < BATCH


# The stop after step 9 is after the last one of an epoch, before its end was recorded.
@pytest.mark.parametrize(
    ("shard_tables", "stops"),
    [(False, [(1, 0, 2), (4, 3, 9), (1, 0, 12)]), (True, [(1, 0, 6), (4, 0, 7)])],
    ids=["whole tables", "tables on shards"],
)
def test_a_run_is_stopped_within_epochs_and_goes_on_with_other_numbers_of_processes(
    alone: Path, tmp_path: Path, shard_tables: bool, stops: list[tuple[int, int, int]]
) -> None:
    train = {"shard_tables": shard_tables}
    for world, rank, at in stops:
        assert crew.train(tmp_path, world, End(rank, at, "stop"), train=train) == {STOPPED}
        late = world > 1 and (at + 1) % STEPS != 0  # several processes look a step later, but at the end of an epoch
        assert newest_step(tmp_path) == at + 1 + late
    assert crew.train(tmp_path, 2, train=train) == {ENDED}

    assert_each_row_once(tmp_path)
    expected, found = crew.last_taken(alone), crew.last_taken(tmp_path)
    assert {number: one.pairs for number, one in found.items()} == {n: one.pairs for n, one in expected.items()}
    assert [one.loss for one in found.values()] == pytest.approx([one.loss for one in expected.values()], rel=1e-5)
    assert crew.losses(tmp_path) == pytest.approx(crew.losses(alone), rel=1e-5)
    assert_close(crew.weights(tmp_path), crew.weights(alone), 1e-4)


def test_a_stop_repeats_no_step(tmp_path: Path) -> None:
    for world, at in [(2, 4), (1, 13)]:
        assert crew.train(tmp_path, world, End(world - 1, at, "stop"), train={"checkpoint_steps": 100}) == {STOPPED}
    assert crew.train(tmp_path, 2) == {ENDED}
    lines = [path.read_text(encoding="utf-8").splitlines() for path in sorted(tmp_path.glob("taken-*-0"))]
    assert [len(one) for one in lines] == [6, 8, 6]


def test_processes_that_are_killed_at_random_steps_leave_the_run_of_two_that_nothing_disturbed(
    both: Path, tmp_path: Path
) -> None:
    draw = random.Random(7)
    for attempt in range(3):
        at = draw.randrange(newest_step(tmp_path), EPOCHS * STEPS)
        ends = [End(rank, at, "kill") for rank in ([0], [1], [0, 1])[attempt]]
        codes = crew.train(tmp_path, 2, *ends)
        assert KILLED in codes
        assert ENDED not in codes
    assert crew.train(tmp_path, 2) == {ENDED}

    assert_each_row_once(tmp_path)
    assert crew.last_taken(tmp_path) == crew.last_taken(both)
    assert crew.losses(tmp_path) == pytest.approx(crew.losses(both), rel=1e-12)
    assert_equal_bits(crew.weights(tmp_path), crew.weights(both))


def test_a_checkpoint_of_one_process_and_of_two_hold_the_same(alone: Path, both: Path) -> None:
    for name in ("model", "optimizer"):
        of_one, of_two = (
            load_file(folder / f"towers/checkpoints/step-{EPOCHS * STEPS:09d}/{name}.safetensors")
            for folder in (alone, both)
        )
        assert_close(of_two, of_one, 1e-4)
