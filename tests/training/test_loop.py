"""The loop in one process: where it was interrupted does not show, and a loss that is not finite stops it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raycl.errors import RayclError
from raycl.model.towers import TwoTower
from raycl.storage.store import Store
from raycl.training import checkpoint, loop, step
from raycl.training.checkpoint import Progress
from raycl.training.job import Job
from raycl.training.schedule import learning_rate
from tests.training import workers
from tests.training.builders import FIRST_ONLY, NUM_ITEMS, assert_equal_bits, job, weights_of
from tests.training.dying import Dying, Killed

CPU = torch.device("cpu")
STEPS = 5


def fit(run: Job) -> tuple[TwoTower, Progress]:
    return loop.fit(run, CPU, lambda _: None)


def resumed(run: Job, *deaths: tuple[int, int]) -> tuple[TwoTower, Progress]:
    """The end of a run that died at each of ``deaths`` and was started again."""
    for epoch, number in deaths:
        with pytest.raises(Killed):
            fit(replace(run, stream=Dying(run.stream, epoch, number)))
    return fit(run)


@pytest.mark.parametrize("loss", [{}, workers.EVERYTHING], ids=["softmax", "everything"])
@pytest.mark.parametrize("deaths", [[(0, 0)], [(0, 3)], [(1, 0)], [(1, 3)], [(1, 4)], [(0, 3), (0, 4), (1, 1), (1, 4)]])
def test_an_interrupted_run_ends_as_one_that_was_not(
    tmp_path: Path, deaths: list[tuple[int, int]], loss: dict[str, Any]
) -> None:
    model = {"dropout": 0.2, "id_dropout": 0.3, "pooling": "recency"}
    towers, progress = fit(job(tmp_path / "straight", model=model, loss=loss))
    again, progress_again = resumed(job(tmp_path / "interrupted", model=model, loss=loss), *deaths)
    assert progress_again == progress
    assert_equal_bits(weights_of(again), weights_of(towers))
    assert (progress.epoch, progress.step, len(progress.losses)) == (2, 2 * STEPS, 2)


def test_a_resumed_run_repeats_only_the_steps_after_its_checkpoint_at_the_same_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    take = step.take

    def noted(*arguments: Any) -> torch.Tensor:
        taken.append(arguments[2:4])
        return take(*arguments)

    monkeypatch.setattr(step, "take", noted)
    run = job(tmp_path, train={"warmup_share": 0.3})
    resumed(run, (1, 3))  # in step 8, after the checkpoint of 7
    rates = [learning_rate(run.train, number, 2 * STEPS) for number in range(2 * STEPS)]
    assert taken == [(number, rates[number]) for number in (0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9)]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    run = job(tmp_path)
    towers, progress = fit(run)
    again, progress_again = fit(replace(run, stream=Dying(run.stream, 0, 0)))
    assert progress_again == progress
    assert_equal_bits(weights_of(again), weights_of(towers))
    assert not again.training


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    _, progress = fit(job(tmp_path, train={"epochs": 10}))
    assert progress.losses[-1] < 0.9 * progress.losses[0]


@pytest.mark.parametrize("share_items", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "recency", "attention", "transformer"])
def test_every_pooling_trains_and_is_resumed(tmp_path: Path, pooling: str, share_items: bool) -> None:
    model = {"pooling": pooling, "share_items": share_items, "feature_dropout": 0.1}
    towers, progress = fit(job(tmp_path / "straight", model=model, train={"epochs": 6}))
    assert progress.losses[-1] < 0.95 * progress.losses[0]
    again, _ = resumed(job(tmp_path / "interrupted", model=model, train={"epochs": 6}), (1, 3))
    assert_equal_bits(weights_of(again), weights_of(towers))


def test_runs_of_other_seeds_differ(tmp_path: Path) -> None:
    losses = [tuple(fit(job(tmp_path / str(seed), seed=seed))[1].losses) for seed in (1, 2, 10**30)]
    assert len(set(losses)) == 3


def test_an_item_is_known_to_the_tower_that_training_showed_it_to(tmp_path: Path) -> None:
    run = job(tmp_path)
    towers = loop.build(run)
    assert towers.user.known.tolist() == (run.inputs.train_counts > 0).tolist()
    assert towers.item.known.tolist() == (run.inputs.train_targets > 0).tolist()
    assert [tower.known[FIRST_ONLY].item() for tower in (towers.user, towers.item)] == [True, False]
    assert [tower.known[NUM_ITEMS - 1].item() for tower in (towers.user, towers.item)] == [False, False]


def test_log_q_is_the_log_of_how_often_an_epoch_draws_an_item(tmp_path: Path) -> None:
    run = job(tmp_path)
    stream = replace(run.stream, global_batch_size=1)
    drawn = np.bincount(np.concatenate([batch.item for batch in stream.epoch(0)]), minlength=NUM_ITEMS)
    assert drawn.sum() == 84
    assert run.inputs.log_q.numpy() == pytest.approx(np.log(np.maximum(drawn, 1) / drawn.sum()), rel=1e-6)


def test_log_q_and_temperature_reach_the_loss(tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [{}, {"log_q": "off"}, {"temperature": 0.5}]
    losses = {fit(job(tmp_path / str(n), loss=loss))[1].losses[0] for n, loss in enumerate(settings)}
    assert len(losses) == 3


def test_bfloat16_trains_to_nearly_the_same_loss(tmp_path: Path) -> None:
    _, plain = fit(job(tmp_path / "a"))
    _, short = fit(job(tmp_path / "b", train={"precision": "bfloat16"}))
    assert plain.losses != short.losses
    assert short.losses == pytest.approx(plain.losses, rel=0.05)


@pytest.mark.parametrize("epochs_before", [0, 1])
def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(
    tmp_path: Path, epochs_before: int
) -> None:
    if epochs_before:
        with pytest.raises(Killed):
            fit(replace(job(tmp_path), stream=Dying(job(tmp_path).stream, 1, 0)))
    store = Store(str(tmp_path / "towers"))
    before = {path: store.sha256(path) for path in store.files()}
    with pytest.raises(RayclError, match=r"the loss became nan .* lower train\.learning_rate"):
        fit(job(tmp_path, loss={"temperature": 1e-40}))
    assert {path: store.sha256(path) for path in store.files()} == before
    assert bool(before) is bool(epochs_before)
    assert fit(job(tmp_path))[1].losses == fit(job(tmp_path / "straight"))[1].losses


@pytest.mark.parametrize(("every", "expected"), [(2, [2, 4, 5, 7, 9, 10]), (STEPS, [5, 10]), (100, [5, 10])])
def test_checkpoints_are_made_at_their_steps_and_once_at_the_end_of_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, expected: list[int]
) -> None:
    saved = []
    monkeypatch.setattr(checkpoint, "write", lambda _, taken: saved.append(taken.progress.step))
    fit(job(tmp_path, train={"checkpoint_steps": every}))
    assert saved == expected


def test_the_listener_hears_the_end_of_every_epoch(tmp_path: Path) -> None:
    heard: list[Mapping[str, Any]] = []
    _, progress = loop.fit(job(tmp_path), CPU, heard.append)
    done = [event for event in heard if event["done"]]
    assert [(event["epoch"], event["step"], event["steps"]) for event in done] == [(0, STEPS, STEPS), (1, STEPS, STEPS)]
    assert [event["loss"] for event in done] == progress.losses
    assert all(event["pairs_per_s"] > 0 for event in done)


def test_the_listener_hears_of_steps_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_REPORT_EVERY_S", 0.0)
    heard: list[Mapping[str, Any]] = []
    _, progress = loop.fit(job(tmp_path / "often"), CPU, heard.append)
    assert [event["step"] for event in heard if not event["done"]] == [1, 2, 3, 4, 5] * 2
    assert progress.losses == fit(job(tmp_path / "seldom"))[1].losses


def test_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(OSError, match="no space left"):
        fit(job(tmp_path))
    with pytest.raises(OSError, match="no space left"):
        fit(job(tmp_path, train={"epochs": 1, "checkpoint_steps": 100}))


def test_a_run_does_not_go_on_from_one_that_read_its_pairs_in_another_order(tmp_path: Path) -> None:
    run = job(tmp_path)
    fit(run)
    other = replace(run, stream=replace(run.stream, shuffle_pairs=30))
    with pytest.raises(RayclError, match=r"with train\.shuffle_pairs=40, .* has train\.shuffle_pairs=30.* --force"):
        fit(other)
