"""What one training run is made of, the same in every process."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raycl.config import TrainConfig
from raycl.config_loss import LossConfig
from raycl.data.reader import PairStream
from raycl.model import log_q
from raycl.model.inputs import FeatureRows
from raycl.model.spec import TowerSpec
from raycl.storage.store import Store


@dataclass(frozen=True)
class Inputs:
    """What training reads besides pairs: features of every item and user, and how often each item comes."""

    items: FeatureRows
    users: FeatureRows
    """Its last row stands for users who are not in the user table."""
    train_counts: Tensor
    """Events of each item in training (num_items,): where there are none, no history has taught the user tower it."""
    train_targets: Tensor
    """Training pairs whose target is the item (num_items,): where there are none, the item tower has not learned it."""
    id_row: Tensor | None = None
    """Row of each item's own embedding (num_items,), where rare items share some."""
    active: npt.NDArray[np.int64] | None = None
    """The items that may be retrieved (active items,), where not all may."""
    neighbours: npt.NDArray[np.int32] | None = None
    """What may stand in for each item in a view of a history (num_items,), -1 for nothing; None where nothing does."""
    mined: npt.NDArray[np.int32] | None = None
    """Hard negatives of each item (num_items, loss.negatives.mined.pool), then -1; None where none were mined."""

    def to(self, device: torch.device) -> Inputs:
        """What a step needs on ``device``."""
        return Inputs(
            self.items.to(device), self.users.to(device), self.train_counts.to(device), self.train_targets.to(device)
        )

    @functools.cached_property
    def log_q(self) -> Tensor:
        """Log of each item's share of training pairs (num_items,): how often a batch draws it."""
        return log_q.static(self.train_targets)


@dataclass(frozen=True)
class Job:
    """One training run, the same in every process."""

    spec: TowerSpec
    train: TrainConfig
    loss: LossConfig
    stream: PairStream
    inputs: Inputs
    store: Store
    """Where checkpoints go."""
    seed: int
    held_out: tuple[tuple[str, int], ...] = ()
    """Path of each file of the stream's store with validation users, and how many pairs of theirs; may be none."""
    start: dict[str, Tensor] | None = None
    """Weights that training begins with, as ``start.fill`` takes them; None where it begins with none."""

    @property
    def num_active(self) -> int:
        """Items that may be retrieved."""
        return self.spec.num_items if self.inputs.active is None else len(self.inputs.active)
