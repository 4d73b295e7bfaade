"""One optimizer step of one process, by the same rule for one process and for many."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raycl.data.reader import Batch
from raycl.model import masking
from raycl.model.row_table import RowTable, tables_of
from raycl.model.towers import TwoTower
from raycl.training import exchange, objective, passes, row_gradients, row_optimizers, sharding
from raycl.training.job import Inputs, Job
from raycl.training.objective import Objective
from raycl.training.passes import Passes
from raycl.training.probe import Probe

_OF_TABLES = {"adam": row_optimizers.RowAdam, "adagrad": row_optimizers.RowAdagrad}


@dataclass(frozen=True)
class Learner:
    """What one process trains, on its device."""

    job: Job
    inputs: Inputs
    """On the device."""
    towers: TwoTower
    model: nn.Module
    """The towers, or where there are several processes what averages their dense gradients over all."""
    objective: Objective
    optimizers: tuple[torch.optim.Optimizer, ...]
    """Of what is dense, and of the tables."""
    correlated: masking.Floats | None
    """How much item features tell of each other, where a term hides some of them."""
    device: torch.device
    probe: Probe = field(default_factory=Probe)
    """Looks at the steps that are told of."""

    row_means: row_gradients.Means = field(default_factory=row_gradients.Means)
    """Remembers how many rows the last step's gradients had."""

    @functools.cached_property
    def trained(self) -> nn.Module:
        """All that a checkpoint holds."""
        return nn.ModuleDict({"towers": self.towers, "objective": self.objective})

    @functools.cached_property
    def tables(self) -> list[RowTable]:
        """What is read by rows, in an order that all processes have."""
        return list(tables_of(self.towers).values())

    @functools.cached_property
    def dense(self) -> list[nn.Parameter]:
        """What is trained besides."""
        rows = {id(table.weight) for table in self.tables}
        return [parameter for parameter in self.trained.parameters() if id(parameter) not in rows]


def learner(job: Job, towers: TwoTower, device: torch.device) -> Learner:
    """Bring a run and its untrained towers to the device; every process calls it."""
    if job.train.shard_tables:
        sharding.spread(towers)
    if job.train.compile:
        for layers in (towers.user.pool, towers.user.head, towers.item.head):
            layers.compile(dynamic=True)  # tables stay as they are: how many rows a step reads differs
    towers, aims = towers.to(device), objective.build(job).to(device)
    features, by_id = job.inputs.items, job.spec.model.item_id
    correlated = masking.correlation(features, item_id=by_id) if job.loss.has("masked_features") else None
    return Learner(
        job, job.inputs.to(device), towers, _together(towers), aims, _optimizers(job, towers, aims), correlated, device
    )


def _together(towers: TwoTower) -> nn.Module:
    if exchange.world_size() == 1:
        return towers
    # Tables have sparse gradients, which `take` averages; nothing changes buffers, so they need not be sent around.
    ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(towers, list(tables_of(towers)))  # type: ignore[no-untyped-call]
    return DistributedDataParallel(towers, forward_sync_buffers=False)


def _optimizers(job: Job, towers: TwoTower, aims: Objective) -> tuple[torch.optim.Optimizer, ...]:
    train, tables = job.train, [table.weight for table in tables_of(towers).values()]
    dense = [one for one in towers.parameters() if not any(one is table for table in tables)]
    groups = [
        {"params": dense, "weight_decay": train.weight_decay},
        {"params": list(aims.parameters()), "weight_decay": 0.0},
    ]
    kind = _OF_TABLES[train.table_optimizer]
    adam = torch.optim.AdamW([group for group in groups if group["params"]], fused=True)
    return (adam, kind(tables, weight_decay=train.weight_decay)) if tables else (adam,)


def take(one: Learner, batch: Batch, number: int, rate: float) -> Tensor:
    """Step ``number`` on this process's part of a global batch, at this learning rate; its loss, detached.

    Every process's items are negatives for every process's users, and the result is that of one process with the
    whole batch: the loss is a mean over rows, and the gradients of equal parts are averaged.
    """
    rows = passes.of(one.job, one.correlated, batch, number, one.device)
    one.trained.zero_grad(set_to_none=True)
    value = backward(one, rows, number)
    exchange.average([parameter.grad for parameter in one.objective.parameters()])
    row_gradients.average(one.tables, one.row_means)
    dense = [parameter.grad for parameter in one.dense if parameter.grad is not None]
    norm = row_gradients.clip(dense, one.tables, one.job.train.gradient_clip)
    one.probe.gradients(norm, one.dense, one.tables, one.objective.temperature)
    table_rate = rate * (one.job.train.table_learning_rate or one.job.train.learning_rate) / one.job.train.learning_rate
    for optimizer, its_rate in zip(one.optimizers, (rate, table_rate), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = its_rate
        optimizer.step()
    one.objective.after_step()
    return value


def backward(one: Learner, rows: Passes, number: int) -> Tensor:
    """The loss, detached, and its gradients in the parameters.

    In several passes the vectors are made without gradients first, then the loss gives the gradient of each vector,
    then each pass is made again and hands its part on (GradCache, Gao et al., RepL4NLP 2021, section 3): the same
    gradients, with the memory of one pass and of the vectors.
    """
    in_batch = one.objective.items_of_all(rows)  # on its way while the towers work
    chunks = rows.chunks(one.job.train.rows_per_pass)
    if len(chunks) == 1:
        users, items = _forward(one, one.model, rows, number, 0, *chunks[0])
        one.probe.vectors(users, items, rows)
        value: Tensor = one.objective(users, items, rows, in_batch, one.inputs, number)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()
    with torch.no_grad():
        made = [_forward(one, one.towers, rows, number, place, *chunk) for place, chunk in enumerate(chunks)]
    users, items = (torch.cat(vectors).requires_grad_() for vectors in zip(*made, strict=True))
    one.probe.vectors(users, items, rows)
    value = one.objective(users, items, rows, in_batch, one.inputs, number)
    value.backward()  # type: ignore[no-untyped-call]
    assert users.grad is not None
    assert items.grad is not None
    for place, chunk in enumerate(chunks):
        # Gradients are added up here and averaged over the processes once, in the last pass.
        with contextlib.nullcontext() if place == len(chunks) - 1 else _local(one.model):
            again = _forward(one, one.model, rows, number, place, *chunk)
            torch.autograd.backward(again, [users.grad[chunk[0]], items.grad[chunk[1]]])
    return value.detach()


def _forward(
    one: Learner, model: nn.Module, rows: Passes, number: int, place: int, users: slice, items: slice
) -> tuple[Tensor, Tensor]:
    """Vectors of these rows; a pass that is made again draws the same dropout."""
    drawn = ((one.job.seed * 1_000_003 + number) * 4_096 + exchange.rank()) * 65_536 + place
    torch.manual_seed(drawn % 2**63)
    precise = one.job.train.precision == "float32"
    with contextlib.nullcontext() if precise else torch.autocast(one.device.type, torch.bfloat16):
        vectors: tuple[Tensor, Tensor] = model(*rows.inputs_of(one.inputs, users, items), catalogue=one.inputs.items)
    return vectors


def _local(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Gradients within stay with this process."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()
