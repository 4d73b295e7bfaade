"""What a log, a table or bad luck may bring: training goes on without it, or ends with the last good checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raycl import journey
from raycl.data import ray_pairs
from raycl.data.handoff import Pairs
from raycl.data.reader import Batch
from raycl.errors import RayclError
from raycl.storage.store import Store
from raycl.training import checkpoint, loop, step
from raycl.training.prepare import prepare
from raycl.training.step import Learner
from tests.data import whole
from tests.data.builders import write_parquet
from tests.training import workers
from tests.training.builders import assert_equal_bits, job, weights_of

CPU = torch.device("cpu")
INFINITE = [float("inf"), -float("inf"), 1e300]


def trained_on(folder: Path, bad: list[float | None], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Weights and losses of a run whose items and users have numbers, these ones among them."""
    whole.without_ray(monkeypatch)
    whole.write_log(folder)
    prices = [float(row) for row in range(25 - len(bad))] + bad
    write_parquet(pa.table({"id": list(range(25)), "price": prices}), folder / "items")
    ages = [20.0 + row for row in range(30 - len(bad))] + bad
    write_parquet(pa.table({"id": [f"u{row}" for row in range(30)], "age": ages}), folder / "users")
    described: dict[str, Any] = {
        name: {"uri": str(folder / name), "id_column": "id", "features": [{"column": column, "kind": "numeric"}]}
        for name, column in (("items", "price"), ("users", "age"))
    }
    described["items"]["title_column"] = None
    train = {"epochs": 2, "global_batch_size": 32}
    config = whole.config(folder, model={"dim": 8}, train=train, **described)
    version, _ = ray_pairs.run(config, journey.workspace(config))
    counts = [version.manifest.counts.get(f"{name}_not_finite", 0) for name in ("items_price", "users_age")]
    assert counts == [sum(one in INFINITE for one in bad)] * 2
    towers, progress = loop.fit(prepare(config, Pairs.of(version), Store(str(folder / "towers"))), CPU, lambda _: None)
    return weights_of(towers) | {"losses": torch.tensor(progress.losses)}


def test_infinite_numbers_are_counted_and_train_as_unknown_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained_on(tmp_path / "unknown", [None, None, float("nan")], monkeypatch)
    found = trained_on(tmp_path / "infinite", [*INFINITE], monkeypatch)
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert_equal_bits(found, expected)


ALONE: dict[str, dict[str, Any]] = {
    f"{kind}, logQ {log_q}, {name}": {"terms": kind, "log_q": log_q, "negatives": negatives}
    for kind in workers.CONTRASTING
    for log_q in ("off", "static", "streaming")
    for name, negatives in {"batch": {}, "bank": {"bank": 24, "bank_after_steps": 1}, "hard": {"hard": 2}}.items()
    if (kind, log_q) != ("corrected_softmax", "off")
}


@pytest.mark.parametrize("loss", ALONE.values(), ids=ALONE)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_batches_of_one_item_have_no_negatives_and_spoil_nothing(
    tmp_path: Path, loss: dict[str, Any], precision: str
) -> None:
    """As where all workers together drew the one item that everybody likes."""
    run = job(tmp_path, loss=loss, train={"precision": precision})
    learner = step.learner(run, loop.build(run), CPU)
    learner.towers.train()
    batch = next(run.stream.epoch(0))
    alone = replace(batch, item=np.full_like(batch.item, 3))
    for number in range(3):
        assert step.take(learner, alone, number, 0.02).isfinite()
    assert [name for name, tensor in weights_of(learner.trained).items() if tensor.isnan().any()] == []
    assert step.take(learner, batch, 3, 0.02).isfinite()


@pytest.mark.parametrize("number", [1, 3, 8])
def test_a_loss_that_becomes_nan_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Checkpoints are made at 2, 4, 5, 7, 9 and 10 steps."""
    expected, _ = loop.fit(job(tmp_path / "straight"), CPU, lambda _: None)
    take = step.take

    def spoilt(one: Learner, batch: Batch, at: int, rate: float) -> torch.Tensor:
        value = take(one, batch, at, rate)
        return value * float("nan") if at == number else value

    run = job(tmp_path / "spoilt")
    with monkeypatch.context() as patch:
        patch.setattr(step, "take", spoilt)
        with pytest.raises(RayclError, match=r"the loss became nan .*; the last checkpoint is intact"):
            loop.fit(run, CPU, lambda _: None)
    assert checkpoint.steps(run.store)[-1:] == [made for made in (2, 4, 5, 7) if made <= number][-1:]
    assert_equal_bits(weights_of(loop.fit(run, CPU, lambda _: None)[0]), weights_of(expected))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("number", [3, 4, 9])
def test_a_weight_that_is_not_finite_is_in_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, value: float
) -> None:
    """The step's own loss was finite: it is that of the weights before. Checkpoints are due after these steps."""
    take = step.take

    def spoilt(one: Learner, batch: Batch, at: int, rate: float) -> torch.Tensor:
        loss = take(one, batch, at, rate)
        if at == number:
            with torch.no_grad():
                one.towers.user.empty[0] = value
        return loss

    run = job(tmp_path)
    monkeypatch.setattr(step, "take", spoilt)
    with pytest.raises(RayclError, match=rf"a weight became infinite or NaN before step {number + 1}: lower"):
        loop.fit(run, CPU, lambda _: None)
    assert checkpoint.steps(run.store)[-1] <= number
