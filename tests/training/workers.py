"""What the processes of the distributed tests run; spawned, so it stands in a module of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn as spawn_processes

from raycl.data import held_out
from raycl.model.row_table import RowTable, tables_of
from raycl.training import exchange, loop, sharding, step, validation
from tests.training.builders import job, weights_of

CPU = torch.device("cpu")
STEPS = 3
MODEL = {"id_dropout": 0.3}

CONTRASTING = ("softmax", "corrected_softmax", "multi_positive", "bpr", "triplet", "cosine_margin")
NEGATIVES = {"uniform": 7, "bank": 24, "bank_after_steps": 1, "explicit": 2, "mined": {"per_pair": 2}}
EVERYTHING: dict[str, Any] = {
    "terms": [*CONTRASTING, "rating", "views", "masked_features", "reconstruction"],
    "learn_temperature": True,
    "log_q": "streaming",
    "negatives": NEGATIVES,
}
SUBSTITUTING = {"kind": "views", "crop": None, "mask": None, "reorder": None, "substitute": 0.5}
EVERY_SETTING: dict[str, Any] = {
    "loss": EVERYTHING,
    "model": MODEL | {"pooling": "attention"},
    "with_context": True,
}
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{kind}, logQ {log_q}": {"loss": {"terms": kind, "log_q": log_q}}
        for kind in CONTRASTING
        for log_q in ("off", "static", "streaming")
        if (kind, log_q) != ("corrected_softmax", "off")
    },
    **{
        f"{kind}, explicit negatives, logQ {log_q}": {
            "loss": {"terms": kind, "log_q": log_q, "negatives": {"explicit": True}}
        }
        for kind in CONTRASTING
        for log_q in ("off", "static")
        if (kind, log_q) != ("corrected_softmax", "off")
    },
    **{f"{kind}, all negatives": {"loss": {"terms": kind, "negatives": NEGATIVES}} for kind in CONTRASTING},
    **{
        f"{kind}, some negatives": {"loss": {"terms": kind, "negatives": NEGATIVES | {"hard": 2, "random": 5}}}
        for kind in CONTRASTING
    },
    **{kind: {"loss": {"terms": ["softmax", kind]}} for kind in ("views", "masked_features", "reconstruction")},
    "views with substitutes": {"loss": {"terms": ["softmax", SUBSTITUTING]}},
    "rating": {"loss": {"terms": {"kind": "rating", "low": 0.5, "high": 2.0}}},
    "learned temperature": {"loss": {"learn_temperature": True}},
    "small sketch": {"loss": {"log_q": "streaming", "sketch": {"width": 7, "num_hashes": 2, "rate": 0.2}}},
    "times and context": {
        "loss": {"terms": ["softmax", "views"]},
        "model": {"pooling": "transformer", "request_dropout": 0.3},
        "with_context": True,
    },
    "hidden ids": {"model": {"id_dropout": 0.5}},
    "everything": EVERY_SETTING,
    "everything in passes of 3": EVERY_SETTING | {"train": {"rows_per_pass": 3}},
    "everything on shards": EVERY_SETTING | {"train": {"shard_tables": True}},
    "everything on shards in passes of 3": EVERY_SETTING | {"train": {"shard_tables": True, "rows_per_pass": 3}},
    "shared items": {"model": {"share_items": True}},
    "shared items on shards": {"model": {"share_items": True}, "train": {"shard_tables": True}},
}
BROKEN = "softmax, logQ static"
OF_FOUR = tuple(
    case
    for case in CASES
    if case.startswith(("everything", "shared items")) or case.endswith(("all negatives", "logQ streaming"))
)
"""What four processes do: each loss, and each way to share the work out. Two do all cases."""


def gradients(folder: Path, case: str) -> dict[str, Tensor]:
    """The loss and the gradients of each of some steps, by this process's part of each batch.

    The gradients are clipped by a norm that none reaches, and no step moves the weights.
    """
    settings = CASES[case]
    run = job(
        folder,
        train={"gradient_clip": 1e9} | settings.get("train", {}),
        loss=settings.get("loss"),
        model={"id_dropout": 0.0} | settings.get("model", {}),
        with_context=settings.get("with_context", False),
    )
    learner = step.learner(run, loop.build(run), CPU)
    learner = replace(learner, optimizers=())
    found: dict[str, Tensor] = {}
    tables = tables_of(learner.trained)
    batches = run.stream.epoch(0, exchange.rank(), exchange.world_size())
    for number, batch in zip(range(STEPS), batches, strict=False):
        value = step.take(learner, batch, number, 0.0)
        found[f"{number} loss"] = exchange.mean(value)
        for name, parameter in learner.trained.named_parameters():
            found[f"{number} {name}"] = whole_gradient(parameter, tables.get(name))
    return found


WATCHED: dict[str, Any] = {
    "validation": {"users": 9, "k": 3, "steps": 2},
    "schedule": {"kind": "plateau", "patience": 1},
    "keep": "best",
}


ASKED: dict[str, dict[str, Any]] = {
    "told": {"model": {"pooling": "transformer"}, "with_context": True},
    "own": {},
    "shared": {"model": {"share_items": True}},
    "spread": {"train": {"shard_tables": True}},
    "spread and shared": {"train": {"shard_tables": True}, "model": {"share_items": True}},
}


def measured(folder: Path) -> dict[str, Tensor]:
    """Recall and NDCG by untrained towers, with blocks so small that every process has some of each."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("_USERS", 2), ("_ITEMS", 3), ("_TARGETS", 2)):
            patch.setattr(validation, name, size)
        for name, settings in ASKED.items():
            run = job(folder, **settings)
            towers = loop.build(run)
            if run.train.shard_tables:
                sharding.spread(towers)
            held = held_out.read(
                run.stream.store, run.held_out, run.stream.rules, "val", 100, context=run.stream.context
            )
            among = np.arange(1, run.spec.num_items)
            asked = validation.Validation(held, run.spec.num_items, among, 4, run.stream.encoders)
            found[name] = torch.tensor(asked.measure(towers, run.inputs), dtype=torch.float64)
    return found


def watched(folder: Path, *, shard_tables: bool) -> dict[str, Tensor]:
    """The weights and the curve of a run that its validations decide on."""
    towers, progress = loop.fit(job(folder, train=WATCHED | {"shard_tables": shard_tables}), CPU, lambda _: None)
    return weights_of(towers) | {"curve": torch.tensor(progress.curve, dtype=torch.float64)}


def whole_gradient(parameter: nn.Parameter, table: RowTable | None) -> Tensor:
    """Of all rows, where other processes hold some of them."""
    assert parameter.grad is not None
    own = parameter.grad.to_dense()
    if table is None or table.shards is None:
        return own.clone()
    whole = torch.zeros(table.num_rows, own.shape[1])
    whole[exchange.rank() :: exchange.world_size()] = own
    dist.all_reduce(whole)
    return whole


def trained_on_shards(folder: Path) -> dict[str, Tensor]:
    """The towers after some steps with tables that are spread over the processes, put together in the first."""
    run = job(folder, train={"shard_tables": True}, loss=EVERYTHING)
    learner = step.learner(run, loop.build(run), CPU)
    batches = run.stream.epoch(0, exchange.rank(), exchange.world_size())
    for number, batch in zip(range(STEPS), batches, strict=False):
        step.take(learner, batch, number, 0.02)
    sharding.put_together(learner.towers)
    return weights_of(learner.towers)


def fitted(folder: Path) -> dict[str, Tensor]:
    """The weights and the losses of a whole run."""
    towers, progress = loop.fit(job(folder, model=MODEL), CPU, lambda _: None)
    return weights_of(towers) | {"losses": torch.tensor(progress.losses, dtype=torch.float64)}


def without_the_gradients_of_others(ctx: Any, gradient: Tensor) -> Tensor:
    """A backward pass of the gather that forgets what other processes did with this one's rows."""
    start = dist.get_rank() * ctx.num_rows
    return gradient[start : start + ctx.num_rows]


def work(rank: int, folder: str, world: int) -> None:
    """One process: join the others, work, and leave what was found for the test to compare."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    try:
        mine = Path(folder) / f"rank-{rank}"
        for case in CASES if world == 2 else OF_FOUR:
            save_file(gradients(mine, case), Path(folder) / f"{case}-{rank}.safetensors")
        save_file(trained_on_shards(mine), Path(folder) / f"shards-{rank}.safetensors")
        if world == 2:
            save_file(fitted(Path(folder) / "shared"), Path(folder) / f"fitted-{rank}.safetensors")
        save_file(measured(mine), Path(folder) / f"measured-{rank}.safetensors")
        for spread in (False, True):
            found = watched(Path(folder) / f"watched-{spread}", shard_tables=spread)
            save_file(found, Path(folder) / f"watched-{spread}-{rank}.safetensors")
        setattr(exchange._Gather, "backward", staticmethod(without_the_gradients_of_others))  # noqa: B010
        save_file(gradients(mine, BROKEN), Path(folder) / f"broken-{rank}.safetensors")
    finally:
        dist.destroy_process_group()


def spawn(folder: Path, world: int) -> None:
    """Run ``work`` in ``world`` new processes."""
    spawn_processes(work, args=(str(folder), world), nprocs=world)  # type: ignore[no-untyped-call]
