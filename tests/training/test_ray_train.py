"""The towers stage on an embedded Ray: any number of workers, interrupted or not, trains the same towers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raycl import journey
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError, RayclError
from raycl.journey import Outcome
from raycl.model import weights
from raycl.tracking import events, model_card, run_page
from raycl.tracking.story import Story
from tests.data import whole
from tests.training.builders import assert_close, assert_equal_bits, weights_of


def config(folder: Path, **train: Any) -> Config:
    """A run of 2 epochs on the small log."""
    settings = {"epochs": 2, "global_batch_size": 32, "threads_per_worker": 1, "use_gpu": "never"}
    return whole.config(folder, train=settings | train, model={"dim": 8, "hidden": [8]})


def train(settings: Config, *, force: bool = False) -> Outcome:
    return journey.train(settings, lambda _: None, force=force)


def towers_of(outcome: Outcome) -> dict[str, Any]:
    store = outcome.version.store
    both = {"user": weights.load_user(store), "item": weights.load_item(store)}
    return {f"{side} {name}": tensor for side, tower in both.items() for name, tensor in weights_of(tower).items()}


@pytest.fixture
def made(ray_local: None, tmp_path: Path) -> Path:
    """A folder with finished pairs."""
    whole.write_log(tmp_path)
    journey.pairs(config(tmp_path))
    return tmp_path


def test_two_workers_train_the_towers_that_this_process_trains(made: Path) -> None:
    alone = train(config(made))
    heard: list[Mapping[str, Any]] = []
    workers = config(made, num_workers=2)
    again = train(workers)
    assert (again.worked, again.version.name) == (False, alone.version.name)
    together = journey.train(workers, heard.append, force=True)
    assert together.worked
    assert together.version.name != alone.version.name
    assert together.version.manifest.facts["losses"] == pytest.approx(alone.version.manifest.facts["losses"], rel=1e-4)
    assert_close(towers_of(together), towers_of(alone), 1e-3)
    assert [event["epoch"] for event in heard if event["done"]] == [0, 1]
    assert together.version.manifest.counts == alone.version.manifest.counts


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_validation_curve_and_what_was_kept_are_told(made: Path, num_workers: int) -> None:
    settings = config(made, num_workers=num_workers, epochs=3, validation={"k": 3}, keep="best")
    heard: list[Mapping[str, Any]] = []
    outcome = journey.train(settings, heard.append)
    facts, store = outcome.version.manifest.facts, outcome.version.store
    assert [event["validation"] for event in heard if event["done"]] == facts["validation"]
    assert [point["epoch"] for point in facts["validation"]] == [0, 1, 2]
    assert len({point["recall"] for point in facts["validation"]}) > 1
    top = max(facts["validation"], key=lambda point: (point["recall"], point["ndcg"], point["step"]))
    assert facts["kept_step"] == top["step"]
    assert facts["kept"].startswith(f"step {top['step']:,}, in epoch {top['epoch'] + 1}, the best recall@3 of 3")
    told = json.loads(store.read("metrics.json"))
    assert (told["validation"], told["kept"]) == (facts["validation"], facts["kept"])
    assert store.names("work") == []


def test_an_early_stop_is_told_with_the_steps_that_were_taken(made: Path) -> None:
    stop = {"patience": 1, "min_gain": 0.99}
    outcome = train(config(made, epochs=9, early_stop=stop, validation={"users": 5}))
    manifest = outcome.version.manifest
    assert len(manifest.facts["losses"]) == len(manifest.facts["validation"]) == 2
    assert manifest.counts["steps"] == manifest.facts["validation"][-1]["step"]
    assert "training ended early: no gain of more than 0.99 in 1 validation after" in manifest.facts["kept"]
    assert {point["users"] for point in manifest.facts["validation"]} == {5}


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_towers(
    made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def until_killed(event: Mapping[str, Any]) -> None:
        if event["done"]:
            raise KeyboardInterrupt

    settings = config(made, checkpoint_steps=1)
    with pytest.raises(KeyboardInterrupt):
        journey.train(settings, until_killed)
    workspace = journey.workspace(settings)
    (name,) = workspace.store.names("towers")
    assert workspace.finished("towers") == []
    heard: list[Mapping[str, Any]] = []
    caplog.set_level("INFO", logger="raycl")
    resumed = journey.train(settings, heard.append)
    assert f"training goes on after step {heard[0]['steps']} of {2 * heard[0]['steps']}" in caplog.text
    assert resumed.version.name == name
    assert [event["epoch"] for event in heard if event["done"]] == [1]
    straight = train(settings, force=True)
    assert resumed.version.manifest.facts["losses"] == straight.version.manifest.facts["losses"]
    assert_equal_bits(towers_of(resumed), towers_of(straight))


def test_a_range_of_workers_trains_the_towers_of_the_number_that_there_is_room_for(made: Path) -> None:
    fixed, ranged = train(config(made, num_workers=2)), config(made, num_workers={"min": 1, "max": 2})
    assert not train(ranged).worked
    again = train(ranged, force=True)
    assert again.version.manifest.facts["losses"] == fixed.version.manifest.facts["losses"]
    assert_equal_bits(towers_of(again), towers_of(fixed))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_loss_that_is_not_finite_ends_the_stage_at_once_with_a_remedy(
    made: Path, num_workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(made, num_workers=num_workers)
    broken = settings.model_copy(update={"loss": settings.loss.model_copy(update={"temperature": 1e-40})})
    with pytest.raises(RayclError, match=r"the loss became nan .* lower train\.learning_rate"):
        train(broken)
    assert journey.workspace(broken).finished("towers") == []
    assert "restart" not in caplog.text


def test_more_gpus_than_there_are_cannot_be_asked_for(made: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.use_gpu=always needs train\.num_workers=2 GPUs"):
        train(config(made, num_workers=2, use_gpu="always"))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_curves_lie_beside_the_towers_for_a_run_that_was_killed_too(made: Path, num_workers: int) -> None:
    def until_killed(event: Mapping[str, Any]) -> None:
        if event["done"]:
            raise KeyboardInterrupt

    settings = config(made, num_workers=num_workers, validation={"k": 3})
    if num_workers == 1:
        with pytest.raises(KeyboardInterrupt):
            journey.train(settings, until_killed)
    version = train(settings).version
    told = events.from_lines(version.store.read("track.jsonl"))
    steps = version.manifest.counts["steps"]
    assert [event["step"] for event in told if event["kind"] == "step"] == list(range(1, steps + 1))
    assert [event["recall"] for event in told if event["kind"] == "validation"] == [
        point["recall"] for point in version.manifest.facts["validation"]
    ]
    (curves,) = version.store.names("tensorboard")
    assert f"tensorboard/{curves}" in version.manifest.checksums
    shown: Any = EventAccumulator(f"{version.store.uri}/tensorboard").Reload()
    assert [point.step for point in shown.Scalars("train/loss")] == list(range(1, steps + 1))
    story = Story.model_validate_json(version.store.read("run.json"))
    assert version.store.read("run.html").decode() == run_page.render(story, told)
    assert version.store.read("model_card.md").decode() == model_card.render(story)
    assert (story.towers, story.inputs, story.config) == (
        version.name,
        version.manifest.inputs,
        version.manifest.config,
    )
    assert (story.steps, list(story.losses)) == (steps, version.manifest.facts["losses"])
    assert sum(part.pairs for part in story.trained.parts) > version.manifest.counts["pairs"] / 2
    pairs = Pairs.of(journey.workspace(settings).open("pairs", version.manifest.inputs["pairs"]))
    counts, active = pairs.train_counts(), np.flatnonzero(~pairs.retired())
    assert [spot.train_count for spot in story.map.spots] == sorted(counts[active].tolist(), reverse=True)
    names = set(pairs.catalogue()["title"].to_pylist()) | {str(item) for item in pairs.catalogue()["item"].to_pylist()}
    assert {spot.name for spot in story.map.spots} <= names
