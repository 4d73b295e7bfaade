"""An early end: signals that ask for it, and the step that all processes agree on."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
import torch

from raycl.training import exchange, loop, stop
from raycl.training.checkpoint import load_newest
from raycl.training.step import learner
from raycl.training.stop import Agreement, Stopped
from tests.training.builders import job

CPU = torch.device("cpu")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_does_what_it_did_before(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda found, _: heard.append(found))
    try:
        asked = threading.Event()
        with stop.on_signals(asked):
            signal.raise_signal(number)
            assert (asked.is_set(), heard) == (True, [])
            assert f"{number.name}: training ends within a few steps" in caplog.text
            signal.raise_signal(number)
            assert heard == [number]
        with stop.on_signals(threading.Event()):
            pass
        signal.raise_signal(number)
        assert heard == [number, number]
    finally:
        signal.signal(number, before)


def test_another_thread_than_the_main_one_trains_without_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def train() -> None:
        with stop.on_signals(threading.Event()):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [before]


def test_a_process_alone_ends_after_the_step_in_which_it_is_asked() -> None:
    asked = threading.Event()
    agreement = Agreement(asked)
    value = torch.tensor(1.5)
    assert agreement.mean(value)() is value
    assert not agreement.reached(at_once=False)
    asked.set()
    assert agreement.reached(at_once=False)


def test_several_processes_end_a_step_later_or_where_something_long_follows_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "world_size", lambda: 2)
    monkeypatch.setattr(exchange, "mean_later", lambda both: lambda: (both + torch.tensor([0.5, 1.0])) / 2)
    for later in (True, False):
        agreement, value = Agreement(threading.Event()), torch.tensor(1.5)
        assert agreement.mean(value)().item() == 1.0
        assert agreement.reached(at_once=not later) is not later
        if later:
            agreement.mean(value)
            assert agreement.reached(at_once=False)


def test_a_run_that_was_asked_to_end_has_a_checkpoint_of_its_last_step(tmp_path: Path) -> None:
    asked = threading.Event()
    asked.set()
    run = job(tmp_path, train={"checkpoint_steps": 100})
    for step in range(1, 4):
        with pytest.raises(Stopped):
            loop.fit(run, CPU, lambda _: None, asked)
        one = learner(run, loop.build(run), CPU)
        assert load_newest(run.store, one.trained, one.optimizers).step == step
    assert loop.fit(run, CPU, lambda _: None)[1].losses == pytest.approx(
        loop.fit(job(tmp_path / "straight"), CPU, lambda _: None)[1].losses, rel=1e-12
    )


def test_stopped_ends_a_program_as_ctrl_c_does() -> None:
    assert issubclass(Stopped, KeyboardInterrupt)


@pytest.mark.requires_gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_wish_arrives_from_the_gpu_with_its_value() -> None:
    wishes = [stop._fetched(torch.tensor(float(number), device="cuda")) for number in range(100)]
    assert [wish.count() for wish in wishes] == [float(number) for number in range(100)]
