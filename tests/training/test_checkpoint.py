"""Checkpoints: a run that is restored goes on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from raycl.errors import RayclError
from raycl.storage.store import Store
from raycl.training import checkpoint
from raycl.training.checkpoint import Progress
from tests.training.builders import assert_equal_bits, weights_of


class Small(nn.Module):
    """A layer, a bag with a padding row, a buffer and a parameter that never has a gradient."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.bag = nn.EmbeddingBag(5, 3, padding_idx=0)
            self.layer = nn.Linear(3, 2)
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("known", torch.tensor([True, False]))
        self.to(device)


def optimizer_of(model: nn.Module, *, fused: bool = False) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1, fused=fused)


def work(model: Small, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        tokens = torch.tensor([[step % 5, 1], [2, 0]], device=model.unused.device)
        optimizer.zero_grad()
        model.layer(model.bag(tokens)).pow(2).sum().backward()
        optimizer.step()


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> checkpoint.Snapshot:
    taken = checkpoint.snapshot(model, [optimizer], progress)
    assert taken is not None
    return taken


def saved(store: Store, *steps: int) -> None:
    """Checkpoints at these steps, of one run."""
    model = Small(0)
    optimizer = optimizer_of(model)
    for step in steps:
        work(model, optimizer, range(step, step + 1))
        checkpoint.write(store, snapshot(model, optimizer, Progress(step=step)))


def restored(store: Store) -> int:
    model = Small(1)
    return checkpoint.load_newest(store, model, [optimizer_of(model)]).step


def check_round_trip(store: Store, device: str, *, fused: bool) -> None:
    straight = Small(0, device)
    optimizer = optimizer_of(straight, fused=fused)
    work(straight, optimizer, range(4))
    before = Progress(1, 2, 6, 0.1 + 0.2, 3, [1 / 3, 2.5], {"seed": 10**30})
    taken = snapshot(straight, optimizer, before)
    checkpoint.write(store, taken)
    other = Small(9, device)
    other_optimizer = optimizer_of(other, fused=fused)
    assert checkpoint.load_newest(store, other, [other_optimizer]) == before
    for steps in (range(4, 5), range(5, 9)):
        work(straight, optimizer, steps)
        work(other, other_optimizer, steps)
        assert_equal_bits(weights_of(other), weights_of(straight))


def test_a_restored_run_continues_bit_by_bit(tmp_path: Path) -> None:
    check_round_trip(Store(str(tmp_path)), "cpu", fused=False)


@pytest.mark.requires_gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [False, True])
def test_a_restored_run_continues_on_a_gpu(tmp_path: Path, fused: bool) -> None:
    check_round_trip(Store(str(tmp_path)), "cuda", fused=fused)


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
def test_a_fused_optimizer_has_its_step_count_beside_its_parameters(tmp_path: Path) -> None:
    saved(Store(str(tmp_path)), 1)
    model = Small(1, "meta")  # stands for a GPU: a device that is not where checkpoints are read
    optimizer = optimizer_of(model)
    optimizer.param_groups[0]["fused"] = True
    checkpoint.load_newest(Store(str(tmp_path)), model, [optimizer])
    assert {value.device.type for state in optimizer.state.values() for value in state.values()} == {"meta"}


def test_without_a_checkpoint_a_run_starts_fresh(tmp_path: Path) -> None:
    model = Small(3)
    before = weights_of(model)
    assert checkpoint.load_newest(Store(str(tmp_path)), model, [optimizer_of(model)]) == Progress()
    assert_equal_bits(weights_of(model), before)


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    saved(store, 2, 4, 10, 1_000)
    assert store.names("checkpoints") == ["step-000000010", "step-000001000"]
    assert restored(store) == 1_000


@pytest.mark.parametrize("missing", ["progress.json", "optimizer.safetensors", "model.safetensors"])
def test_a_checkpoint_that_was_not_completed_is_ignored(tmp_path: Path, missing: str) -> None:
    store = Store(str(tmp_path))
    saved(store, 2, 4)
    folder = tmp_path / "checkpoints" / "step-000000004"
    names = ("model.safetensors", "optimizer.safetensors", "progress.json")
    for name in names[names.index(missing) :]:  # they are written in this order
        (folder / name).unlink()
    assert restored(store) == 2


def test_what_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("checkpoints/notes/progress.json", b"{}")
    saved(store, 2, 4, 6)
    assert store.names("checkpoints") == ["notes", "step-000000004", "step-000000006"]
    assert restored(store) == 6


@pytest.mark.parametrize("path", ["model.safetensors", "optimizer.safetensors", "progress.json"])
@pytest.mark.parametrize("change", [lambda content: content[:-9], lambda content: content[:40] + b"?" + content[41:]])
def test_a_checkpoint_that_was_altered_is_passed_over_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, change: Callable[[bytes], bytes]
) -> None:
    store = Store(str(tmp_path))
    saved(store, 3, 6)
    damaged = f"checkpoints/step-000000006/{path}"
    store.write(damaged, change(store.read(damaged)))
    assert restored(store) == 3
    assert "checkpoints/step-000000006 is passed over" in caplog.text


def test_a_checkpoint_of_other_towers_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    saved(store, 3)
    other = nn.Linear(2, 2)
    with pytest.raises(RayclError, match=r"step-000000003 is a checkpoint of other towers .* train with --force"):
        checkpoint.load_newest(store, other, [optimizer_of(other)])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.requires_gpu)])
def test_training_that_goes_on_does_not_change_a_snapshot(tmp_path: Path, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model, progress = Small(0, device), Progress(step=4, losses=[1.5])
    optimizer = optimizer_of(model)
    work(model, optimizer, range(4))
    expected = weights_of(model)
    taken = snapshot(model, optimizer, progress)
    work(model, optimizer, range(4, 9))
    progress.losses.append(0.5)
    checkpoint.write(Store(str(tmp_path)), taken)
    again = Small(1, device)
    other = optimizer_of(again)
    assert checkpoint.load_newest(Store(str(tmp_path)), again, [other]) == Progress(step=4, losses=[1.5])
    assert_equal_bits(weights_of(again), expected)
    assert {float(state["step"]) for state in other.state.values()} == {4.0}


def test_a_checkpoint_of_pairs_in_another_order_is_refused() -> None:
    order = {"seed": 3, "train.global_batch_size": 16}
    progress = Progress(step=2)
    checkpoint.require_order(progress, order)
    checkpoint.require_order(progress, dict(order))
    assert progress.order == order
    with pytest.raises(RayclError, match=r"with train\.global_batch_size=16, .* has train\.global_batch_size=32,"):
        checkpoint.require_order(progress, order | {"train.global_batch_size": 32})


def test_checkpoints_that_were_passed_over_do_not_cost_those_that_are_written_after_them(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    saved(store, 20, 40)
    for step in (20, 40):
        store.write(f"checkpoints/step-{step:09d}/model.safetensors", b"cut short")
    assert restored(store) == 0
    saved(store, 3, 6, 9)
    assert restored(store) == 9
    assert [name for name in sorted(store.names("checkpoints")) if name < "step-000000010"] == [
        "step-000000006",
        "step-000000009",
    ]


def test_half_written_checkpoints_go_with_the_old_ones(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("checkpoints/step-000000002/model.safetensors", b"half")
    saved(store, 3)
    assert list(store.names("checkpoints")) == ["step-000000003"]
