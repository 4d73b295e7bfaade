"""The curves of a run: every step once, alike for a run that was killed, and what is told of a step is true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raycl.errors import RayclError
from raycl.tracking import lines
from raycl.tracking.events import Event
from raycl.training import loop, probe, step, track
from raycl.training.job import Job
from raycl.training.schedule import learning_rate
from tests.training.builders import assert_equal_bits, job, weights_of
from tests.training.dying import Dying, Killed

CPU = torch.device("cpu")
STEPS = 5
WATCHED = {"validation": {"users": 12, "k": 3, "steps": 2}}
CLOCKS = ("time", "pairs_per_s")


class Kept:
    """A sink that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.ends: list[bool] = []

    def put(self, event: Event) -> None:
        self.heard.append(event)

    def flush(self) -> None: ...

    def close(self, *, finished: bool) -> None:
        self.ends.append(finished)


def told(run: Job) -> list[dict[str, Any]]:
    """The events on storage, without what a clock says."""
    found = lines.read(run.store, lines.PATH)
    return [{name: value for name, value in event.items() if name not in CLOCKS} for event in found]


@pytest.mark.parametrize("deaths", [[(0, 1)], [(0, 3)], [(1, 0)], [(0, 3), (1, 1), (1, 4)]])
def test_a_killed_run_goes_on_in_the_curves_of_one_that_was_not(tmp_path: Path, deaths: list[tuple[int, int]]) -> None:
    straight, killed = (job(tmp_path / name, train=WATCHED) for name in ("straight", "killed"))
    loop.fit(straight, CPU, lambda _: None)
    for epoch, number in deaths:
        with pytest.raises(Killed):
            loop.fit(replace(killed, stream=Dying(killed.stream, epoch, number)), CPU, lambda _: None)
    loop.fit(killed, CPU, lambda _: None)
    assert told(killed) == told(straight)
    assert [event["step"] for event in told(killed) if event["kind"] == "step"] == list(range(1, 2 * STEPS + 1))


def test_steps_and_validations_are_told_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, losses, take = job(tmp_path, train=WATCHED), [], step.take

    def noted(*arguments: Any) -> torch.Tensor:
        losses.append(take(*arguments))
        return losses[-1]

    monkeypatch.setattr(step, "take", noted)
    sink = Kept()
    _, progress = loop.fit(run, CPU, lambda _: None, None, [sink])
    steps = [event for event in sink.heard if event["kind"] == "step"]
    assert [event["loss"] for event in steps] == [loss.item() for loss in losses]
    rates = [learning_rate(run.train, number, 2 * STEPS) for number in range(2 * STEPS)]
    assert [event["learning_rate"] for event in steps] == rates
    assert [event["epoch"] for event in steps] == [0] * STEPS + [1] * STEPS
    assert {event["temperature"] for event in steps} == {run.loss.temperature}
    assert all(event["pairs_per_s"] > 0 and event["gradient_norm"] > 0 for event in steps)
    found = [event for event in sink.heard if event["kind"] == "validation"]
    assert [(event["step"], event["recall"], event["ndcg"], event["k"]) for event in found] == [
        (point.step, point.recall, point.ndcg, 3) for point in progress.curve
    ]
    assert len(found) == 6
    assert (sink.heard[0]["kind"], sink.heard[0]["step"], sink.ends) == ("start", 0, [True])


def test_what_is_measured_changes_nothing_and_long_runs_measure_few_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often, seldom = job(tmp_path / "often", train={"epochs": 3}), job(tmp_path / "seldom", train={"epochs": 3})
    towers, _ = loop.fit(often, CPU, lambda _: None)
    monkeypatch.setattr(track, "_MOST_POINTS", 4)
    others, _ = loop.fit(seldom, CPU, lambda _: None)
    assert_equal_bits(weights_of(others), weights_of(towers))
    assert [event["step"] for event in told(seldom)] == [4, 8, 12]
    assert told(seldom) == [event for event in told(often) if event["step"] in (4, 8, 12)]
    monkeypatch.setattr(track, "_MOST_WHOLE", 2)
    fewer = job(tmp_path / "fewer", train={"epochs": 3})
    loop.fit(fewer, CPU, lambda _: None)
    assert [event["step"] for event in told(fewer)] == [4, 8, 12]
    assert [event["step"] for event in told(fewer) if "alignment" in event] == [8]


@pytest.mark.parametrize("rows_per_pass", [None, 5])
def test_norms_alignment_and_uniformity_are_those_of_the_step(tmp_path: Path, rows_per_pass: int | None) -> None:
    run = job(
        tmp_path,
        train={"rows_per_pass": rows_per_pass, "gradient_clip": 1e9},
        model={"id_dropout": 0.0, "feature_dropout": 0.0},
        loss={"learn_temperature": True},
    )
    one = step.learner(run, loop.build(run), CPU)
    batch = next(run.stream.epoch(0))
    history, users = torch.from_numpy(batch.history.astype(np.int64)), torch.from_numpy(batch.user_row.astype(np.int64))
    items = torch.from_numpy(batch.item.astype(np.int64))
    with torch.no_grad():
        user, item = one.towers(history, run.inputs.users.take(users), items, run.inputs.items.take(items))
    dense = sum(float(parameter.detach().square().sum()) for parameter in one.dense) ** 0.5
    one.probe.begin(whole=True)
    step.take(one, batch, 0, 0.0)
    found = {name: value.item() for name, value in one.probe.take().items()}
    gradients = [parameter.grad.to_dense() for parameter in one.trained.parameters() if parameter.grad is not None]
    assert found["gradient_norm"] == pytest.approx(sum(float(g.square().sum()) for g in gradients) ** 0.5, rel=1e-5)
    assert found["weight_norm"] == pytest.approx(dense, rel=1e-6)
    assert found["temperature"] == pytest.approx(run.loss.temperature, rel=1e-6)
    assert found["embedding_norm"] > 0
    pairs = zip(user, item, strict=True)
    assert found["alignment"] == pytest.approx(np.mean([float((a - b).square().sum()) for a, b in pairs]), rel=1e-4)
    places = range(len(batch))
    for name, vectors, own in (("user", user, list(places)), ("item", item, items.tolist())):
        apart = [float((vectors[i] - vectors[j]).square().sum()) for i in places for j in places if own[i] != own[j]]
        assert found[f"{name}_uniformity"] == pytest.approx(np.log(np.mean(np.exp(-2 * np.array(apart)))), rel=1e-4)
    step.take(one, batch, 1, 0.0)
    assert one.probe.take() == {}
    one.probe.begin(whole=False)
    step.take(one, batch, 1, 0.0)
    assert one.probe.take().keys() == {"gradient_norm", "temperature"}


def test_vectors_that_are_all_one_have_uniformity_0_and_opposite_ones_less() -> None:
    same = torch.tensor([[1.0, 0.0]] * 3)
    assert probe.uniformity(same).item() == pytest.approx(0.0)
    assert probe.uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item() == pytest.approx(-8.0)
    assert probe.alignment(same, -same).item() == pytest.approx(4.0)


def test_a_run_that_fails_leaves_the_curves_of_its_checkpoint_and_tells_its_sinks(tmp_path: Path) -> None:
    run, sink = job(tmp_path), Kept()
    with pytest.raises(Killed):
        loop.fit(replace(run, stream=Dying(run.stream, 1, 1)), CPU, lambda _: None, None, [sink])
    assert [event["step"] for event in told(run)] == [1, 2, 3, 4, 5]
    assert sink.ends == [False]
    with pytest.raises(RayclError, match="the loss became nan"):
        loop.fit(job(tmp_path / "nan", loss={"temperature": 1e-40}), CPU, lambda _: None, None, [sink])
    assert sink.ends == [False, False]
