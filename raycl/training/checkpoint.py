"""Training state on storage, without pickle: safetensors for tensors, JSON for where the run stands."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import safetensors.torch as st
import torch
from torch import Tensor, nn

from raycl.errors import RayclError
from raycl.model.row_table import RowTable, tables_of
from raycl.storage.store import Store
from raycl.training import exchange, sharding
from raycl.training.curve import Point

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
_MODEL, _OPTIMIZER, _PROGRESS = "model.safetensors", "optimizer.safetensors", "progress.json"
_KEEP = 2
_NAME = re.compile(r"step-(\d{9})")

Optimizers = Sequence[torch.optim.Optimizer]


@dataclass
class Progress:
    """How far a run has come; ``loss_sum`` and ``loss_steps`` belong to the epoch that is under way."""

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    losses: list[float] = field(default_factory=list)
    """Mean loss of each finished epoch."""
    order: dict[str, int] = field(default_factory=dict)
    """``PairStream.order`` of the run: the first ``epoch_step`` global batches of it have been read in this epoch, by
    however many processes."""
    curve: list[Point] = field(default_factory=list)
    """Every validation so far."""

    def __post_init__(self) -> None:
        """JSON has lists for the points."""
        self.curve = [Point(*point) for point in self.curve]


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, in memory of its own: training goes on and does not change it."""

    tensors: dict[str, dict[str, Tensor]]
    """By file."""
    progress: Progress

    @property
    def weights(self) -> dict[str, Tensor]:
        """By name in the model."""
        return self.tensors[_MODEL]


def snapshot(model: nn.Module, optimizers: Optimizers, progress: Progress) -> Snapshot | None:
    """The state at this step, in the first process; every process calls it.

    What chance decides in training is a function of seed and step, so there is no state of a generator to keep. Tables
    that are spread over processes are saved whole, so that any number of processes can go on.
    """
    spread = _spread(model)
    if exchange.rank() > 0 and not spread:
        return None

    def kept(tensor: Tensor, parameter: str) -> Tensor:
        """In memory of its own, with the rows of all processes."""
        table = spread.get(parameter)
        if table is not None and tensor.shape[:1] == table.weight.shape[:1]:
            return sharding.whole(tensor.detach(), table.num_rows)
        return tensor.detach().to("cpu", copy=True).contiguous()

    weights = {name: kept(tensor, name) for name, tensor in model.state_dict().items()}
    states = {f"{name}|{key}": kept(value, name) for name, key, value in _states(model, optimizers)}
    return Snapshot({_MODEL: weights, _OPTIMIZER: states}, copy.deepcopy(progress)) if exchange.rank() == 0 else None


def write(store: Store, taken: Snapshot) -> dict[str, str]:
    """Write a checkpoint, complete when its ``progress.json`` is there; of those up to it the newest two stay.

    Later ones were passed over when this run began, and it will come to their steps. Returns the SHA-256 of each file
    of tensors.
    """
    name = _name(taken.progress.step)
    folder = f"{FOLDER}/{name}"
    sums = {}
    for path, tensors in taken.tensors.items():
        content = st.save(tensors)
        store.write(f"{folder}/{path}", content)
        sums[path] = _sum(content)
    write_progress(store, taken.progress, sums)
    kept = [one for one in _complete(store) if one <= name][-_KEEP:]
    for old in store.names(FOLDER):
        if _NAME.fullmatch(old) and old < name and old not in kept:  # half-written ones too
            store.delete_folder(f"{FOLDER}/{old}")
    return sums


def write_progress(store: Store, progress: Progress, sums: dict[str, str]) -> None:
    """Write, or overwrite, what tells of the checkpoint of this step, beside the files whose ``sums`` these are."""
    record = {"progress": asdict(progress), "checksums": sums}
    store.write(f"{FOLDER}/{_name(progress.step)}/{_PROGRESS}", json.dumps(record).encode())


def load_newest(store: Store, model: nn.Module, optimizers: Optimizers) -> Progress:
    """Restore the newest whole checkpoint into ``model`` and ``optimizers``; a fresh Progress where there is none.

    One that was altered or cut short is passed over with a warning. RayclError for one of other towers, and where
    processes could not read the same one.
    """
    progress = _load_newest(store, model, optimizers)
    if not exchange.is_same(progress.step):
        raise RayclError(
            f"the processes read different checkpoints under {store.uri}/{FOLDER}: some could not read the newest; look"
            f" at the storage and run again"
        )
    return progress


def _load_newest(store: Store, model: nn.Module, optimizers: Optimizers) -> Progress:
    for name in reversed(_complete(store)):
        folder = f"{FOLDER}/{name}"
        try:
            plain = json.loads(store.read(f"{folder}/{_PROGRESS}"))
            contents = {path: store.read(f"{folder}/{path}") for path in (_MODEL, _OPTIMIZER)}
            altered = [path for path in contents if _sum(contents[path]) != plain["checksums"][path]]
            progress = Progress(**plain["progress"])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            log.warning("checkpoint %s/%s is passed over: %s", store.uri, folder, error or type(error).__name__)
            continue
        if altered:
            log.warning("checkpoint %s/%s is passed over: %s was altered or cut short", store.uri, folder, altered[0])
            continue
        try:
            restore(model, optimizers, st.load(contents[_MODEL]), st.load(contents[_OPTIMIZER]))
        except RuntimeError as error:
            raise RayclError(
                f"{store.uri}/{folder} is a checkpoint of other towers than this config makes, or of another raycl:"
                f" train with --force ({str(error).partition(':')[0]})"
            ) from error
        return progress
    return Progress()


def restore(model: nn.Module, optimizers: Optimizers, weights: dict[str, Tensor], states: dict[str, Tensor]) -> None:
    """Put in what a snapshot held; of tables that are spread over processes, this one's rows."""
    spread = _spread(model)

    def own(tensor: Tensor, parameter: str) -> Tensor:
        table = spread.get(parameter)
        return sharding.part(tensor) if table is not None and tensor.shape[:1] == (table.num_rows,) else tensor

    model.load_state_dict({name: own(tensor, name) for name, tensor in weights.items()})
    owners = {
        parameter: (optimizer, bool(group.get("fused")))
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        found = {key.partition("|")[2]: own(value, name) for key, value in states.items() if _parameter(key) == name}
        if found:
            optimizer, fused = owners[parameter]
            # A step count stays on the CPU unless the optimizer is fused.
            optimizer.state[parameter] = {
                key: value if key == "step" and not fused else value.to(parameter.device)
                for key, value in found.items()
            }


def steps(store: Store) -> list[int]:
    """The steps of all complete checkpoints, ascending."""
    return [int(name.partition("-")[2]) for name in _complete(store)]


def require_order(progress: Progress, order: dict[str, int]) -> None:
    """Let ``progress`` go on through pairs in this order; RayclError where it was made in another."""
    changed = [name for name, value in progress.order.items() if order.get(name) != value]
    if changed:
        name = changed[0]
        raise RayclError(
            f"the newest checkpoint is of a run with {name}={progress.order[name]}, and this one has {name}="
            f"{order.get(name)}, which reads the pairs in another order: train with --force"
        )
    progress.order = dict(order)


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def newest_step(store: Store) -> int:
    """How many steps a run had made at its newest checkpoint; 0 without any."""
    return max((int(name.rpartition("-")[2]) for name in _complete(store)), default=0)


def _complete(store: Store) -> list[str]:
    names = [name for name in store.names(FOLDER) if _NAME.fullmatch(name)]
    return [name for name in names if store.exists(f"{FOLDER}/{name}/{_PROGRESS}")]


def _spread(model: nn.Module) -> dict[str, RowTable]:
    return {name: table for name, table in tables_of(model).items() if table.shards is not None}


def _states(model: nn.Module, optimizers: Optimizers) -> Iterator[tuple[str, str, Tensor]]:
    """Parameter, key and value of what the optimizers keep; none has a parameter of another."""
    for name, parameter in model.named_parameters():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                yield name, key, torch.as_tensor(value)


def _parameter(key: str) -> str:
    return key.partition("|")[0]
