"""Validation against a ranking of the whole catalogue for one user at a time, and against the evaluation stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raycl import journey
from raycl.config import Config
from raycl.data import held_out
from raycl.data.features import Encoders
from raycl.data.held_out import HeldOut
from raycl.errors import RayclError
from raycl.model import embed
from raycl.model.towers import TwoTower
from raycl.model.users import UserSide
from raycl.training import loop, validation
from raycl.training.job import Job
from raycl.training.validation import Validation
from tests import tiny
from tests.evaluation import naive
from tests.training.builders import FIRST_ONLY, NUM_ITEMS, assert_equal_bits, job, weights_of

CPU = torch.device("cpu")


def users_of(run: Job) -> HeldOut:
    return held_out.read(run.stream.store, run.held_out, run.stream.rules, "val", 1_000, context=run.stream.context)


def measure(run: Job, towers: TwoTower, k: int, active: Any = None) -> tuple[float, float]:
    return Validation(users_of(run), NUM_ITEMS, active, k, run.stream.encoders).measure(towers, run.inputs)


def looped(run: Job, towers: TwoTower, k: int, active: Any = None) -> tuple[float, float]:
    """Recall and NDCG from sorted lists; equal scores by row."""
    held = users_of(run)
    retrievable = set(range(NUM_ITEMS) if active is None else active.tolist())
    towers.eval()
    vectors = embed.items(towers.item, run.inputs.items)
    side = UserSide(towers.user_alone(run.inputs.items), run.stream.encoders or Encoders())
    users = side.vectors(held.state, run.inputs.users)
    scores = torch.from_numpy(users) @ torch.from_numpy(vectors).T
    lists, targets = [], []
    for user in range(len(held)):
        one = slice(user, user + 1)
        context = set(held.met.of(one).item.tolist()) | (set(range(NUM_ITEMS)) - retrievable)
        lists.append(naive.rank(scores[user].tolist(), context))
        targets.append(set(held.wanted.of(one).item.tolist()) & retrievable)
    found = naive.summary(lists, targets, (k,), NUM_ITEMS)
    return found[f"recall_at_{k}"], found[f"ndcg_at_{k}"]


def trained(run: Job) -> TwoTower:
    return loop.fit(run, CPU, lambda _: None)[0]


@pytest.mark.parametrize("k", [1, 3, 7, 1_000])
@pytest.mark.parametrize(
    ("model", "with_context"),
    [({}, False), ({"share_items": True, "pooling": "recency"}, False), ({"pooling": "attention"}, True)],
    ids=["own", "shared", "told"],
)
def test_recall_and_ndcg_are_those_of_sorted_lists(
    tmp_path: Path, k: int, model: dict[str, Any], with_context: bool
) -> None:
    run = job(tmp_path, model=model, with_context=with_context)
    towers = trained(run)
    found = measure(run, towers, k)
    assert found == pytest.approx(looped(run, towers, k), abs=1e-12)
    assert found[0] == 1.0 if k == 1_000 else 0.0 < found[0] < 1.0


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 3, 2), (4, 7, 100)])
def test_blocks_of_any_size_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int, int]
) -> None:
    run = job(tmp_path)
    towers = trained(run)
    whole = measure(run, towers, 3)
    for name, size in zip(("_USERS", "_ITEMS", "_TARGETS"), sizes, strict=True):
        monkeypatch.setattr(validation, name, size)
    assert measure(run, towers, 3) == whole


@pytest.mark.parametrize("size", [2, 3, 100])
def test_equal_scores_are_ranked_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """All items the same: every one that the user has not met and that has an earlier row is before the target."""
    monkeypatch.setattr(validation, "_ITEMS", size)
    run = job(tmp_path, model={"item_id": False})
    alike = run.inputs.items.take(torch.zeros(NUM_ITEMS, dtype=torch.int64))
    run = replace(run, inputs=replace(run.inputs, items=alike))
    towers = loop.build(run)
    for k in (1, 2, 5):
        assert measure(run, towers, k) == pytest.approx(looped(run, towers, k), abs=1e-12)


def test_only_items_that_may_be_retrieved_are_ranked(tmp_path: Path) -> None:
    run = job(tmp_path)
    towers = trained(run)
    active = np.array([row for row in range(NUM_ITEMS) if row not in (0, 5, FIRST_ONLY)])
    found = measure(run, towers, 3, active)
    assert found == pytest.approx(looped(run, towers, 3, active), abs=1e-12)
    assert found != measure(run, towers, 3)


def test_towers_are_left_as_they_were(tmp_path: Path) -> None:
    run = job(tmp_path, model={"dropout": 0.5, "feature_dropout": 0.3})
    towers = loop.build(run).train()
    before, state = weights_of(towers), torch.get_rng_state()
    assert measure(run, towers, 3) == measure(run, towers, 3)
    assert towers.training
    assert all(module.training for module in towers.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert_equal_bits(weights_of(towers), before)


@pytest.mark.requires_gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_what_the_cpu_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_ITEMS", 7)
    run = job(tmp_path)
    towers = trained(run)
    expected = measure(run, towers, 3)
    cuda = torch.device("cuda")
    run = replace(run, inputs=run.inputs.to(cuda))
    assert measure(run, towers.to(cuda), 3) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_that_are_not_finite_are_no_perfect_recall(tmp_path: Path, side: str, value: float) -> None:
    run = job(tmp_path)
    towers = loop.build(run)
    with torch.no_grad():
        next(getattr(towers, side).head.parameters())[0] = value
    with pytest.raises(RayclError, match=r"vectors that are not finite: lower train\.learning_rate"):
        measure(run, towers, 3)


@pytest.mark.parametrize(
    "split",
    [
        {"kind": "leave_last_out"},
        {"kind": "leave_last_n", "num_val": 3},
        {"kind": "time", "val_share": 0.2, "test_share": 0.2},
        {"kind": "cold_users", "val_share": 0.4, "test_share": 0.1},
        {"kind": "cold_items", "val_share": 0.2, "test_share": 0.1},
    ],
    ids=lambda split: str(split["kind"]),
)
def test_the_evaluation_stage_finds_the_same_of_the_validation_part(
    ray_local: None, tmp_path: Path, split: Mapping[str, Any]
) -> None:
    tiny.write_log(tmp_path / "log")
    config: Config = tiny.tiny_config(tmp_path)
    config = tiny.changed(config, "pairs", split=split, min_history=2)
    config = tiny.changed(config, "train", validation={"k": 5}, epochs=3, global_batch_size=8)
    config = tiny.changed(config, "evaluation", part="val", ks=[5])
    journey.pairs(config)
    facts = journey.train(config, lambda _: None).version.manifest.facts
    evaluation = journey.evaluate(config).version.manifest
    (kept,) = (point for point in facts["validation"] if point["step"] == facts["kept_step"])
    assert kept["users"] == evaluation.counts["users"] > 0
    assert 0.0 < kept["recall"] < 1.0
    for name in ("recall", "ndcg"):
        assert kept[name] == pytest.approx(evaluation.facts["towers"][f"{name}_at_5"], abs=1e-7)
