"""The step in one process: passes of any size, what chance repeats, and what the optimizer is given."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raycl.model.inputs import FeatureRows
from raycl.training import exchange, loop, passes, step
from raycl.training.step import Learner
from tests.training import workers
from tests.training.builders import assert_close, job, weights_of

CPU = torch.device("cpu")


def learner(folder: Path, device: torch.device = CPU, **settings: Any) -> Learner:
    run = job(folder, **settings)
    made = step.learner(run, loop.build(run), device)
    made.towers.train()
    return made


def dense(parameter: torch.nn.Parameter) -> Tensor:
    """Its gradient, of a table too."""
    assert parameter.grad is not None
    return parameter.grad.to_dense()


def gradients(folder: Path, train: dict[str, Any], device: torch.device = CPU, **settings: Any) -> dict[str, Tensor]:
    one = learner(folder, device, train=train, **settings)
    rows = passes.of(one.job, one.correlated, next(one.job.stream.epoch(0)), 0, device)
    found = {"loss": step.backward(one, rows, 0)}
    return found | {name: dense(parameter) for name, parameter in one.trained.named_parameters()}


@pytest.mark.requires_gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rows_per_pass", [None, 5])
def test_a_gpu_finds_the_gradients_of_the_cpu(tmp_path: Path, rows_per_pass: int | None) -> None:
    train = {"rows_per_pass": rows_per_pass}
    cpu, gpu = (gradients(tmp_path, train, torch.device(one), loss=workers.EVERYTHING) for one in ("cpu", "cuda"))
    assert_close({name: tensor.cpu() for name, tensor in gpu.items()}, cpu, 1e-4)


@pytest.mark.parametrize("rows_per_pass", [1, 5, 16, 40, 100])
@pytest.mark.parametrize("loss", [{}, workers.EVERYTHING], ids=["softmax", "everything"])
def test_passes_of_any_size_have_the_gradients_of_one(tmp_path: Path, rows_per_pass: int, loss: dict[str, Any]) -> None:
    whole = gradients(tmp_path, {}, loss=loss)
    assert_close(gradients(tmp_path, {"rows_per_pass": rows_per_pass}, loss=loss), whole, 1e-5)


def test_a_pass_that_is_made_again_draws_the_same_dropout(tmp_path: Path) -> None:
    """Else the gradients would not be those of the vectors that were judged."""
    one = learner(tmp_path, train={"rows_per_pass": 6}, model={"dropout": 0.5})
    rows = passes.of(one.job, None, next(one.job.stream.epoch(0)), 0, CPU)
    step.backward(one, rows, 0)
    found = {name: dense(parameter) for name, parameter in one.towers.named_parameters()}
    one.towers.zero_grad()
    made = [step._forward(one, one.towers, rows, 0, place, *chunk) for place, chunk in enumerate(rows.chunks(6))]
    users, items = (torch.cat(vectors) for vectors in zip(*made, strict=True))
    one.objective(users, items, rows, exchange.gathered_later(rows.batch_items), one.inputs, 0).backward()
    expected = {name: dense(parameter) for name, parameter in one.towers.named_parameters()}
    assert_close(found, expected, 1e-6)


def test_every_pass_draws_a_dropout_of_its_own(tmp_path: Path) -> None:
    one = learner(tmp_path, model={"dropout": 0.5})
    rows = passes.of(one.job, None, next(one.job.stream.epoch(0)), 0, CPU)
    first, second = (step._forward(one, one.towers, rows, 0, place, slice(8), slice(8)) for place in (0, 1))
    assert not torch.equal(first[0], second[0])


def test_no_pass_holds_more_rows_than_it_may(tmp_path: Path) -> None:
    told: dict[str, Any] = {"model": {"pooling": "transformer"}, "with_context": True}
    one = learner(tmp_path, train={"rows_per_pass": 5}, loss=workers.EVERYTHING, **told)
    held: list[int] = []

    def note(_: torch.nn.Module, arguments: tuple[Tensor | FeatureRows, ...]) -> None:
        held.extend(map(len, arguments))

    one.towers.register_forward_pre_hook(note)
    step.take(one, next(one.job.stream.epoch(0)), 0, 0.0)
    assert len(held) % 7 == 0
    assert max(held) == 5


def test_dropout_is_drawn_anew_in_each_step_and_alike_in_a_repeated_one(tmp_path: Path) -> None:
    one = learner(tmp_path, model={"dropout": 0.5, "id_dropout": 0.0})
    batch = next(one.job.stream.epoch(0))
    losses = [step.take(one, batch, number, 0.0).item() for number in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


def test_a_step_moves_the_towers_and_a_learned_temperature_at_the_rate_it_is_given(tmp_path: Path) -> None:
    one = learner(tmp_path, loss={"learn_temperature": True})
    batch = next(one.job.stream.epoch(0))
    before = weights_of(one.trained)
    step.take(one, batch, 0, 0.0)
    assert_close(weights_of(one.trained), before, 1e-12)
    step.take(one, batch, 1, 0.01)
    after = weights_of(one.trained)
    for name in ("towers.item.ids.weight", "towers.user.history.weight", "objective.log_temperature"):
        assert (after[name] - before[name]).abs().max() > 1e-3


def test_only_towers_decay(tmp_path: Path) -> None:
    one = learner(tmp_path, train={"weight_decay": 0.5}, loss=workers.EVERYTHING)
    groups = [group for optimizer in one.optimizers for group in optimizer.param_groups]
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in one.trained.named_parameters():
        assert decays[id(parameter)] == (0.5 if name.startswith("towers.") else 0.0)


def test_the_gradient_is_clipped_over_all_that_is_trained(tmp_path: Path) -> None:
    one = learner(tmp_path, train={"gradient_clip": 1e-3}, loss=workers.EVERYTHING)
    step.take(one, next(one.job.stream.epoch(0)), 0, 0.0)
    norms = [dense(parameter).norm() for parameter in one.trained.parameters()]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("kind", [*workers.CONTRASTING, "rating"])
def test_every_kind_of_loss_brings_users_nearer_to_their_items(tmp_path: Path, kind: str) -> None:
    """Nearer than they are to the items of others, on the pairs that were trained on."""
    high = {"low": -1, "high": 0.5} if kind == "rating" else {}
    one = learner(tmp_path, loss={"terms": {"kind": kind, **high}, "log_q": "static"}, model={"id_dropout": 0.0})
    batch = next(one.job.stream.epoch(0))
    rows = passes.of(one.job, None, batch, 0, CPU)

    def own_scores() -> float:
        with torch.no_grad():
            users, items = one.towers(*rows.inputs_of(one.inputs, slice(None), slice(None)))
        return float((users * items).sum(1).mean())

    before = own_scores()
    for number in range(30):
        step.take(one, batch, number, 0.02)
    assert own_scores() > before + 0.1


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # the compiler warns of its own ways
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("pooling", ["recency", "transformer"])
def test_compiled_layers_have_the_gradients_of_plain_ones(tmp_path: Path, pooling: str) -> None:
    settings: dict[str, Any] = {"loss": workers.EVERYTHING, "model": {"pooling": pooling}}
    plain, compiled = (gradients(tmp_path, {"compile": chosen}, **settings) for chosen in (False, True))
    assert_close(compiled, plain, 1e-5)
