"""Training state on storage, without pickle: safetensors for tensors, JSON for where the run stands."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field

import safetensors.torch as st
import torch
from torch import Tensor, nn

from raycl.storage.store import Store

FOLDER = "checkpoints"
_KEEP = 2
_NAME = re.compile(r"step-(\d{9})")


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


def save(store: Store, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write a checkpoint, complete when its ``progress.json`` is there, and drop all but the newest two."""
    folder = f"{FOLDER}/step-{progress.step:09d}"
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    store.write(f"{folder}/model.safetensors", st.save(weights))
    store.write(f"{folder}/optimizer.safetensors", st.save(_optimizer_tensors(model, optimizer)))
    store.write(f"{folder}/progress.json", json.dumps(asdict(progress)).encode())
    for old in _complete(store)[:-_KEEP]:
        store.delete_folder(f"{FOLDER}/{old}")


def load_newest(store: Store, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Restore the newest complete checkpoint into ``model`` and ``optimizer``; a fresh Progress where there is none."""
    names = _complete(store)
    if not names:
        return Progress()
    folder = f"{FOLDER}/{names[-1]}"
    model.load_state_dict(st.load(store.read(f"{folder}/model.safetensors")))
    _restore_optimizer(model, optimizer, st.load(store.read(f"{folder}/optimizer.safetensors")))
    return Progress(**json.loads(store.read(f"{folder}/progress.json")))


def _complete(store: Store) -> list[str]:
    names = [name for name in store.names(FOLDER) if _NAME.fullmatch(name)]
    return [name for name in names if store.exists(f"{FOLDER}/{name}/progress.json")]


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state under ``<parameter>|<key>``."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}|{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return tensors


def _restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    fused = any(group.get("fused") for group in optimizer.param_groups)
    for name, parameter in model.named_parameters():
        state = {key.partition("|")[2]: value for key, value in tensors.items() if key.partition("|")[0] == name}
        # AdamW keeps its step count on the CPU unless it is fused.
        placed = {
            key: value if key == "step" and not fused else value.to(parameter.device) for key, value in state.items()
        }
        if placed:
            optimizer.state[parameter] = placed
