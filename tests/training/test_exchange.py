"""Several processes against one: the same loss, the same gradients, the same towers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

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


@pytest.mark.parametrize("num_processes", [2, 4])
@pytest.mark.parametrize("case", range(len(workers.CASES)))
def test_processes_have_the_loss_and_gradients_of_one_with_the_whole_batch(
    left_by: Callable[[int], Path], num_processes: int, case: int, tmp_path: Path
) -> None:
    alone = workers.gradients(tmp_path, *workers.CASES[case])
    for rank in range(num_processes):
        assert_close(load_file(left_by(num_processes) / f"gradients-{case}-{rank}.safetensors"), alone, 1e-5)
    for name in ("user.history.weight", "item.ids.weight"):
        assert min(float(alone[f"{step} {name}"].abs().max()) for step in range(workers.STEPS)) > 1e-3


def test_two_processes_train_the_towers_that_one_trains(left_by: Callable[[int], Path], tmp_path: Path) -> None:
    first, second = (load_file(left_by(2) / f"fitted-{rank}.safetensors") for rank in range(2))
    assert_equal_bits(second, first)
    assert_close(first, workers.fitted(tmp_path), 1e-4)


def test_a_process_alone_exchanges_nothing() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert exchange.gather(rows) is rows
    assert exchange.mean(rows) is rows
    assert (exchange.rank(), exchange.world_size()) == (0, 1)
