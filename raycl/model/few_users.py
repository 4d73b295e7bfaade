"""A few users to vectors in NumPy: the user tower's forward pass without what torch costs a call.

A tower of means and dense layers is some twenty small operations, each of which costs torch more to begin than to do;
for one user at a time that is most of the time. Poolings other than means, ensembles and many users are torch's.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import erf

from raycl.model import embed
from raycl.model.ensemble import AnyUserTower
from raycl.model.features import FeatureBlock
from raycl.model.history import WeightedMean
from raycl.model.inputs import FeatureRows
from raycl.model.towers import Head, UserTower

Vectors = npt.NDArray[np.float32]

_FEW = 64
"""Users up to which NumPy is faster."""
_LEAST_LENGTH, _LEAST_WEIGHT = np.float32(1e-12), np.float32(1e-9)
"""Torch's, by which it divides at the least."""
_ROOT = np.float32(1 / math.sqrt(2))
_HALF, _ONE = np.float32(0.5), np.float32(1.0)


class FewUsers:
    """``embed.users`` of one tower, quick for a few users; threads may share it."""

    def __init__(self, tower: AnyUserTower) -> None:
        """``tower``: on the CPU, and trained no further."""
        self._tower = tower
        self._plain = _Plain.of(tower)

    def __call__(
        self, history: npt.NDArray[np.int32], features: FeatureRows, age_s: Vectors, context: FeatureRows
    ) -> Vectors:
        """Vectors (users, dim), as ``embed.users`` has them; of each user one row in each of the arguments."""
        if self._plain is None or len(history) > _FEW:
            return embed.users(self._tower, history, None, features, age_s, context)
        return self._plain(history, features, context)


class _Plain:
    """The parts of a tower of means, its weights still torch's own memory."""

    def __init__(self, tower: UserTower, pool: WeightedMean) -> None:
        assert tower.history is not None
        self._known, self._table = tower.known.numpy(), _of(tower.history.weight)
        self._row = tower.id_row.numpy() if tower.shares_rows else None
        self._recency = None if pool.recency is None else np.exp(_of(pool.recency))
        self._empty = _of(tower.empty)
        self._features, self._context = (_Described(one) for one in (tower.features, tower.context))
        self._layers = _layers(tower.head)

    @classmethod
    def of(cls, tower: AnyUserTower) -> Self | None:
        """None for a tower of another kind."""
        if not isinstance(tower, UserTower) or not isinstance(tower.pool, WeightedMean):
            return None
        if tower.history is None or tower.history.shards is not None or tower.training:
            return None
        return cls(tower, tower.pool)

    def __call__(self, history: npt.NDArray[np.int32], features: FeatureRows, context: FeatureRows) -> Vectors:
        items = np.maximum(history, 0)
        present = (history >= 0) & self._known[items]
        rows = items if self._row is None else self._row[items]
        weights = present.astype(np.float32)
        if self._recency is not None:
            weights *= self._recency[: weights.shape[1]]
        total = weights.sum(1, keepdims=True)
        weights /= np.maximum(total, _LEAST_WEIGHT)
        pooled = np.matmul(weights[:, None], self._table[np.where(present, rows + 1, 0)])[:, 0]
        inputs = np.where(present.any(1, keepdims=True), pooled, self._empty)
        for described in (self._features(features), self._context(context)):
            inputs = inputs if described is None else inputs + described
        for into, into_bias, back, back_bias in self._layers:
            hidden = inputs @ into + into_bias
            inputs = inputs + (hidden * _HALF * (_ONE + erf(hidden * _ROOT))) @ back + back_bias
        lengths = np.sqrt(np.einsum("ij,ij->i", inputs, inputs))[:, None]
        return np.asarray(inputs / np.maximum(lengths, _LEAST_LENGTH), dtype=np.float32)


class _Described:
    """What a block of features says, which torch works out; nothing where there are none."""

    def __init__(self, block: FeatureBlock) -> None:
        self._block = block if any(True for _ in block.parameters()) else None

    def __call__(self, rows: FeatureRows) -> Vectors | None:
        if self._block is None:
            return None
        with torch.inference_mode():
            found: Any = self._block(rows)
            return np.asarray(found.numpy())


def _layers(head: Head) -> list[tuple[Vectors, Vectors, Vectors, Vectors]]:
    found = []
    for layer in head.layers:
        into, back = (one for one in layer.children() if isinstance(one, torch.nn.Linear))
        found.append((_of(into.weight).T, _of(into.bias), _of(back.weight).T, _of(back.bias)))
    return found


def _of(weight: torch.Tensor) -> Vectors:
    return np.asarray(weight.detach().numpy())
