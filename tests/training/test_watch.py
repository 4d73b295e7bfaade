"""What validations do to a run: the towers that it keeps, its end, its rate, and how it goes on after a kill."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raycl.data import held_out
from raycl.data.reader import Batch
from raycl.errors import InputError, RayclError
from raycl.model.towers import TwoTower
from raycl.storage.store import Store
from raycl.training import checkpoint, loop, step, watch
from raycl.training.checkpoint import Progress
from raycl.training.curve import best
from raycl.training.job import Job
from raycl.training.step import Learner
from raycl.training.stop import Stopped
from raycl.training.validation import Validation
from tests.training.builders import NUM_ITEMS, assert_equal_bits, job, weights_of
from tests.training.test_loop import STEPS, resumed

CPU = torch.device("cpu")


def settings(**train: Any) -> dict[str, Any]:
    return {"epochs": 4, "validation": {"users": 100, "k": 3}} | train


def fit(run: Job) -> tuple[TwoTower, Progress]:
    return loop.fit(run, CPU, lambda _: None)


def recall(run: Job, towers: TwoTower) -> float:
    held = held_out.read(run.stream.store, run.held_out, run.stream.rules, "val", 100)
    return Validation(held, NUM_ITEMS, None, 3).measure(towers, run.inputs)[0]


Script = Callable[..., None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Sets the recalls that validations find after these steps; with numbers alone, after each epoch."""
    recalls: dict[int, float] = {}
    newest, take = [0], step.take

    def noted(one: Learner, batch: Batch, number: int, rate: float) -> torch.Tensor:
        newest[0] = number + 1
        return take(one, batch, number, rate)

    def scripted(*in_turn: float, steps: Sequence[int] | None = None) -> None:
        recalls.clear()
        recalls.update(zip(steps or itertools.count(STEPS, STEPS), in_turn, strict=False))

    def measure(*_: object) -> tuple[float, float]:
        return recalls[newest[0]], recalls[newest[0]] / 2

    monkeypatch.setattr(step, "take", noted)
    monkeypatch.setattr(Validation, "measure", measure)
    return scripted


def test_every_epoch_ends_with_a_validation_of_its_towers(tmp_path: Path) -> None:
    run = job(tmp_path, train=settings(keep="last"))
    towers, progress = fit(run)
    assert [(point.epoch, point.step) for point in progress.curve] == [(n, STEPS * (n + 1)) for n in range(4)]
    assert {point.users for point in progress.curve} == {12}
    assert progress.curve[-1].recall == recall(run, towers)


def test_validations_within_an_epoch_are_at_their_steps(tmp_path: Path) -> None:
    _, progress = fit(job(tmp_path, train=settings(epochs=2, validation={"users": 100, "k": 3, "steps": 2})))
    assert [(point.epoch, point.step) for point in progress.curve] == [(0, 2), (0, 4), (0, 5), (1, 7), (1, 9), (1, 10)]


def test_a_validation_changes_nothing_of_the_training(tmp_path: Path) -> None:
    model = {"dropout": 0.3, "feature_dropout": 0.2}
    plain, _ = fit(job(tmp_path / "plain", model=model))
    often = {"validation": {"users": 100, "k": 3, "steps": 1}, "keep": "last"}
    watched, _ = fit(job(tmp_path / "watched", model=model, train=often))
    assert_equal_bits(weights_of(watched), weights_of(plain))


@pytest.mark.parametrize("keep", ["auto", "best"])
def test_a_run_ends_with_the_towers_of_its_best_validation(tmp_path: Path, script: Script, keep: str) -> None:
    script(0.1, 0.3, 0.2, 0.1)
    early, _ = fit(job(tmp_path / "two", train=settings(epochs=2, schedule="constant")))
    towers, progress = fit(job(tmp_path / "four", train=settings(keep=keep, schedule="constant")))
    assert (progress.epoch, best(progress.curve)) == (4, progress.curve[1])
    assert_equal_bits(weights_of(towers), weights_of(early))
    assert not towers.training


@pytest.mark.parametrize("train", [{"keep": "last"}, {"validation": {"users": 0}}])
def test_otherwise_it_ends_with_the_last_towers(tmp_path: Path, script: Script, train: dict[str, Any]) -> None:
    script(0.3, 0.2, 0.1, 0.0)
    plain, _ = fit(job(tmp_path / "plain", train={"epochs": 4}))
    towers, progress = fit(job(tmp_path / "watched", train=settings(**train)))
    assert len(progress.curve) == (4 if "keep" in train else 0)
    assert_equal_bits(weights_of(towers), weights_of(plain))
    assert Store(str(tmp_path / "watched" / "towers")).names("work/best") == []


def test_training_stops_where_validations_gain_no_more(
    tmp_path: Path, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script(0.1, 0.2, 0.2, 0.15, 0.9)
    caplog.set_level(logging.INFO, "raycl")
    run = job(tmp_path, train=settings(epochs=9, early_stop={"patience": 2}))
    _, progress = fit(run)
    assert (progress.epoch, progress.step, len(progress.losses)) == (4, 4 * STEPS, 4)
    assert "training ended after 4 of 9 epochs: no gain in 2 validations after step 10" in caplog.text
    assert fit(run)[1] == progress


def test_training_may_stop_within_an_epoch(tmp_path: Path, script: Script) -> None:
    script(0.3, 0.2, 0.1, steps=(3, 5, 8))
    heard: list[Mapping[str, Any]] = []
    train = settings(epochs=9, early_stop={"patience": 2}, validation={"users": 100, "k": 3, "steps": 3})
    run = job(tmp_path, train=train)
    _, progress = loop.fit(run, CPU, heard.append)
    assert [point.step for point in progress.curve] == [3, 5, 8]
    assert (progress.epoch, progress.epoch_step, progress.step, len(progress.losses)) == (2, 0, 8, 2)
    done = [event for event in heard if event["done"]]
    assert [(event["epoch"], event["step"], event["steps"]) for event in done] == [(0, 5, 5), (1, 3, 5)]
    assert checkpoint.steps(run.store)[-1] == 8
    again = loop.fit(run, CPU, heard.append)[1]
    assert again == progress
    assert [event for event in heard if event["done"]] == done


def test_a_plateau_lowers_the_rate_of_the_steps_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    script(0.1, 0.05, 0.2, 0.2)
    rates, take = [], step.take

    def heard(*arguments: Any) -> torch.Tensor:
        rates.append(arguments[3])
        return take(*arguments)

    monkeypatch.setattr(step, "take", heard)
    schedule = {"kind": "plateau", "factor": 0.5, "patience": 1}
    fit(job(tmp_path, train=settings(schedule=schedule, warmup_share=0.0)))
    assert rates == pytest.approx([0.02] * 2 * STEPS + [0.01] * 2 * STEPS)


DECIDED = {
    "validation": {"users": 100, "k": 3, "steps": 2},
    "schedule": {"kind": "plateau", "patience": 1, "factor": 0.5},
    "early_stop": {"patience": 4},
    "epochs": 6,
    "checkpoint_steps": 3,
}


@pytest.mark.parametrize("deaths", [[(0, 0)], [(0, 2)], [(0, 3)], [(0, 4)], [(1, 0)], [(0, 4), (1, 1), (1, 4), (2, 3)]])
def test_an_interrupted_run_decides_as_one_that_was_not(
    tmp_path: Path, script: Script, deaths: list[tuple[int, int]]
) -> None:
    script(*[0.1, 0.2, 0.15, 0.3, 0.25, 0.25, 0.31, 0.3, 0.2, 0.1, 0.1], steps=(2, 4, 5, 7, 9, 10, 12, 14, 15, 17, 19))
    towers, progress = fit(job(tmp_path / "straight", train=DECIDED))
    assert (progress.epoch, len(progress.curve)) == (4, 11)
    again, progress_again = resumed(job(tmp_path / "interrupted", train=DECIDED), *deaths)
    assert progress_again == progress
    assert_equal_bits(weights_of(again), weights_of(towers))


@pytest.mark.parametrize("after", [1, 2, 4, 5, 9, 10, 17, 19])
def test_a_run_that_was_asked_to_end_validates_what_was_due_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """It ends at once, with a checkpoint of the step and before any validation of it."""
    straight, progress = fit(job(tmp_path / "straight", train=DECIDED))
    run, asked, take = job(tmp_path / "asked", train=DECIDED), threading.Event(), step.take
    after = min(after, progress.step)

    def asking(one: Learner, batch: Batch, number: int, rate: float) -> torch.Tensor:
        if number + 1 == after:
            asked.set()
        return take(one, batch, number, rate)

    with monkeypatch.context() as patch:
        patch.setattr(step, "take", asking)
        with pytest.raises(Stopped):
            loop.fit(run, CPU, lambda _: None, asked)
    assert checkpoint.steps(run.store)[-1] == after
    towers, again = fit(run)
    assert again == progress
    assert_equal_bits(weights_of(towers), weights_of(straight))


def test_towers_that_a_run_may_go_back_to_stay_and_older_ones_do_not(tmp_path: Path, script: Script) -> None:
    """The newest checkpoint may turn out to be damaged, and the one before knows of an earlier best only."""
    script(0.1, 0.2, 0.3, 0.4, 0.35, 0.3)
    run = job(tmp_path, train=settings(epochs=6, checkpoint_steps=100))
    towers, _ = fit(run)
    kept = {int(name[5:14]) for name in run.store.names("work/best")}
    assert {15, 20} <= kept <= {10, 15, 20}  # 10 goes if its checkpoint is gone by the time that 20 is the best
    newest = f"checkpoints/step-{6 * STEPS:09d}/progress.json"
    run.store.write(newest, b"{")
    assert_equal_bits(weights_of(fit(run)[0]), weights_of(towers))


def test_all_best_towers_since_the_older_checkpoint_stay(tmp_path: Path, script: Script) -> None:
    script(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    run = job(tmp_path, train=settings(epochs=6))
    fit(run)
    assert checkpoint.steps(run.store) == [29, 30]
    assert [int(name[5:14]) for name in run.store.names("work/best")] == [25, 30]


@pytest.mark.parametrize("damage", ["absent", "cut short"])
def test_best_towers_that_cannot_be_read_are_named(tmp_path: Path, script: Script, damage: str) -> None:
    script(0.1, 0.3, 0.2, 0.1)
    run = job(tmp_path, train=settings())
    fit(run)
    path = f"work/best/step-{2 * STEPS:09d}.safetensors"
    if damage == "absent":
        run.store.delete(path)
    else:
        run.store.write(path, run.store.read(path)[:-9])
    with pytest.raises(RayclError, match=r"step-000000010\.safetensors, the towers of the best validation, cannot be"):
        fit(run)


NEEDING = [
    ({"keep": "best"}, "train.keep=best"),
    ({"early_stop": {"patience": 7}}, "train.early_stop.patience=7"),
    ({"schedule": "plateau"}, "train.schedule=plateau"),
]


@pytest.mark.parametrize(("train", "named"), NEEDING)
def test_without_held_out_users_what_needs_them_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: dict[str, Any], named: str
) -> None:
    monkeypatch.setattr(step, "take", None)
    run = replace(job(tmp_path, train=settings(**train)), held_out=())
    with pytest.raises(InputError, match=rf"^{named} needs a validation part, .* leave the setting out$"):
        fit(run)
    assert run.store.files() == []


def test_without_held_out_users_validation_is_off_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "raycl")
    heard: list[Mapping[str, Any]] = []
    run = replace(job(tmp_path, train=settings()), held_out=())
    _, progress = loop.fit(run, CPU, heard.append)
    assert progress.curve == []
    assert all(event["validation"] is None for event in heard)
    assert [record.message for record in caplog.records if "validation" in record.message] == [
        "validation is off: the validation part of the pairs has no user with an item to find"
    ]


def test_the_listener_hears_the_newest_validation_beside_the_loss(tmp_path: Path) -> None:
    heard: list[Mapping[str, Any]] = []
    _, progress = loop.fit(job(tmp_path, train=settings(epochs=2)), CPU, heard.append)
    told = [event["validation"] for event in heard if event["done"]]
    assert told == [{"k": 3, **point._asdict()} for point in progress.curve]


def test_a_finished_run_tells_what_it_kept_and_why(tmp_path: Path, script: Script) -> None:
    script(0.1, 0.3, 0.2, 0.1)
    stopping = settings(early_stop={"patience": 2}, epochs=9)
    for train, words in (
        (settings(), "step 10, in epoch 2, the best recall@3 of 4"),
        (settings(keep="last"), "step 20, the last one"),
        (settings(validation={"users": 0}), "step 20, the last one; nothing was validated"),
        (stopping, "step 10, in epoch 2, the best recall@3 of 4; training ended early: no gain in 2 validations"),
    ):
        run = job(tmp_path / words, train=train)
        told = watch.told(run.train, fit(run)[1])
        assert told["kept"].startswith(words)
        assert told["kept"].split()[1].strip(",") == str(told["kept_step"])
        assert [point["step"] for point in told["validation"]] == ([] if "nothing" in words else [5, 10, 15, 20])
