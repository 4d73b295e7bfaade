"""Several processes against one: the same loss, the same gradients, the same towers."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from raycl.training import exchange
from tests.training import workers
from tests.training.builders import assert_close, assert_equal_bits


@pytest.fixture(scope="module")
def left_by(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The folder in which so many processes left what they found; they run once."""

    @functools.cache
    def run(num_processes: int) -> Path:
        folder = tmp_path_factory.mktemp("processes")
        workers.spawn(folder, num_processes)
        return folder

    return run


@functools.cache
def alone(case: str) -> dict[str, Tensor]:
    """What one process finds with the whole batch."""
    with tempfile.TemporaryDirectory() as folder:
        return workers.gradients(Path(folder), case)


@pytest.mark.parametrize(
    ("num_processes", "case"), [*((2, case) for case in workers.CASES), *((4, case) for case in workers.OF_FOUR)]
)
def test_processes_have_the_loss_and_gradients_of_one_with_the_whole_batch(
    left_by: Callable[[int], Path], num_processes: int, case: str
) -> None:
    for rank in range(num_processes):
        assert_close(load_file(left_by(num_processes) / f"{case}-{rank}.safetensors"), alone(case), 1e-5)
    tables = [name for name in ("towers.user.history.weight", "towers.item.ids.weight") if f"0 {name}" in alone(case)]
    for name in tables:
        assert min(float(alone(case)[f"{step} {name}"].abs().max()) for step in range(workers.STEPS)) > 1e-3


@pytest.mark.parametrize("num_processes", [2, 4])
def test_a_gather_that_forgets_the_gradients_of_others_would_be_noticed(
    left_by: Callable[[int], Path], num_processes: int
) -> None:
    broken, expected = load_file(left_by(num_processes) / "broken-0.safetensors"), alone(workers.BROKEN)
    assert_close({"loss": broken["0 loss"]}, {"loss": expected["0 loss"]}, 1e-5)
    far = (broken["0 towers.item.ids.weight"] - expected["0 towers.item.ids.weight"]).abs().max()
    assert far > 100 * 1e-5


def test_every_case_has_a_loss_of_its_own() -> None:
    """A setting that changes nothing would be equal on any number of processes."""
    losses = {
        case: tuple(alone(case)[f"{step} loss"].item() for step in range(workers.STEPS)) for case in workers.CASES
    }
    assert losses.pop("learned temperature") == pytest.approx(losses["softmax, logQ static"], rel=1e-6)
    for other in ("in passes of 3", "on shards", "on shards in passes of 3"):
        assert losses.pop(f"everything {other}") == pytest.approx(losses["everything"], rel=1e-6)
    assert losses.pop("shared items on shards") == losses["shared items"]
    assert len(set(losses.values())) == len(losses)


def test_two_processes_train_the_towers_that_one_trains(left_by: Callable[[int], Path], tmp_path: Path) -> None:
    first, second = (load_file(left_by(2) / f"fitted-{rank}.safetensors") for rank in range(2))
    assert_equal_bits(second, first)
    assert_close(first, workers.fitted(tmp_path), 1e-4)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_validate_as_one_does(left_by: Callable[[int], Path], num_processes: int, tmp_path: Path) -> None:
    expected = workers.measured(tmp_path)
    assert all(0.0 < value < 1.0 for found in expected.values() for value in found.tolist())
    for rank in range(num_processes):
        assert_equal_bits(load_file(left_by(num_processes) / f"measured-{rank}.safetensors"), expected)


@pytest.mark.parametrize("num_processes", [2, 4])
@pytest.mark.parametrize("spread", [False, True])
def test_processes_decide_by_validations_as_one_does(
    left_by: Callable[[int], Path], num_processes: int, tmp_path: Path, spread: bool
) -> None:
    """Where tables are spread over them, the first process has the towers that were kept."""
    expected = workers.watched(tmp_path, shard_tables=False)
    assert len(expected["curve"]) == 6
    for rank in range(num_processes):
        found = load_file(left_by(num_processes) / f"watched-{spread}-{rank}.safetensors")
        if not spread or rank == 0:
            assert_close(found, expected, 1e-3)
        assert torch.equal(found["curve"], expected["curve"])


@pytest.mark.parametrize("num_processes", [2, 4])
def test_towers_whose_tables_are_spread_over_processes_are_trained_as_whole_ones(
    left_by: Callable[[int], Path], tmp_path: Path, num_processes: int
) -> None:
    found = load_file(left_by(num_processes) / "shards-0.safetensors")
    assert_close(found, workers.trained_on_shards(tmp_path), 1e-4)
    other = load_file(left_by(num_processes) / "shards-1.safetensors")
    assert other["item.ids.weight"].shape == (0, 8)


def test_a_process_alone_exchanges_nothing() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert exchange.gather(rows) is rows
    assert exchange.mean(rows) is rows
    assert (exchange.rank(), exchange.world_size()) == (0, 1)
