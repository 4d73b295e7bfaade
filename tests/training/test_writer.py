"""Checkpoints written by a thread: the step goes on, one at a time, and no failure is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from raycl.storage.store import Store
from raycl.training import checkpoint
from raycl.training.checkpoint import Progress
from raycl.training.writer import Writer

NO_SPACE = "no space left"


class Slow(Store):
    """A store whose writes wait until they may go on, and fail where they should."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        object.__setattr__(self, "may_go_on", threading.Event())
        object.__setattr__(self, "fails", False)
        object.__setattr__(self, "now", [0, 0])

    def write(self, path: str, content: bytes) -> None:
        now = self.__dict__["now"]
        now[0] += 1
        now[1] = max(now)
        assert self.__dict__["may_go_on"].wait(60)
        now[0] -= 1
        if self.__dict__["fails"]:
            raise OSError(NO_SPACE)
        super().write(path, content)

    def go_on(self, *, fails: bool = False) -> None:
        object.__setattr__(self, "fails", fails)
        self.__dict__["may_go_on"].set()


@pytest.fixture
def store(tmp_path: Path) -> Slow:
    return Slow(str(tmp_path))


@pytest.fixture
def model() -> nn.Linear:
    return nn.Linear(2, 2)


def save(writer: Writer, model: nn.Module, step: int) -> None:
    writer.save(model, [torch.optim.AdamW(model.parameters())], Progress(step=step))


def steps_on(store: Store) -> list[int]:
    return [int(name.rpartition("-")[2]) for name in checkpoint._complete(store)]


def test_training_goes_on_while_a_checkpoint_is_written_and_the_last_is_awaited(store: Slow, model: nn.Linear) -> None:
    before = model.weight.detach().clone()
    with Writer(store) as writer:
        save(writer, model, 1)
        assert steps_on(store) == []
        model.weight.data.zero_()
        store.go_on()
    assert steps_on(store) == [1]
    again = nn.Linear(2, 2)
    checkpoint.load_newest(store, again, [torch.optim.AdamW(again.parameters())])
    assert torch.equal(again.weight, before)


def test_there_are_never_two_at_once(store: Slow, model: nn.Linear) -> None:
    store.go_on()
    with Writer(store) as writer:
        for step in range(1, 6):
            save(writer, model, step)
            assert [done for done in steps_on(store) if done == step - 1] == [step - 1] * (step > 1)
    assert steps_on(store) == [4, 5]
    assert store.__dict__["now"] == [0, 1]


def test_a_failure_is_raised_at_the_next_checkpoint(store: Slow, model: nn.Linear) -> None:
    writer = Writer(store)
    store.go_on(fails=True)
    save(writer, model, 1)
    with pytest.raises(OSError, match=NO_SPACE):
        save(writer, model, 2)
    store.go_on()
    save(writer, model, 3)
    writer.wait()
    assert steps_on(store) == [3]


def test_a_failure_of_the_last_is_raised_at_the_end(store: Slow, model: nn.Linear) -> None:
    store.go_on(fails=True)
    with pytest.raises(OSError, match=NO_SPACE), Writer(store) as writer:
        save(writer, model, 1)


@pytest.mark.parametrize("fails", [False, True])
def test_an_error_of_training_is_raised_after_the_last_checkpoint_was_awaited(
    store: Slow, model: nn.Linear, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    def train() -> None:
        with Writer(store) as writer:
            save(writer, model, 1)
            store.go_on(fails=fails)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert steps_on(store) == [1] * (not fails)
    assert (f"was not written: {NO_SPACE}" in caplog.text) is fails


def test_a_second_one_at_the_same_step_tells_of_the_progress_alone(store: Slow, model: nn.Linear) -> None:
    store.go_on()
    optimizers = [torch.optim.AdamW(model.parameters())]
    folder = Path(store.uri) / checkpoint.FOLDER / "step-000000003"
    with Writer(store) as writer:
        writer.save(model, optimizers, Progress(step=3))
        writer.wait()
        written = (folder / "model.safetensors").stat().st_mtime_ns
        writer.save(model, optimizers, Progress(step=3, epoch=1, losses=[0.5]))
        writer.save(model, optimizers, Progress(step=3, epoch=1, losses=[0.25]))
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    found = checkpoint.load_newest(store, nn.Linear(2, 2), [])
    assert (found.epoch, found.losses) == (1, [0.25])
