"""The job of both engines, and what their answers must be.

Users and items are vectors of small whole numbers, so that every inner product is exact in float32 and an answer does
not depend on the order of a sum. Wanted are the ``k`` best items of every user by inner product.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

USERS_PER_BLOCK = 512
_HIGHEST = 64
_MULTIPLIER = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Size:
    """How much there is to do."""

    users: int
    items: int
    dim: int
    k: int

    @classmethod
    def from_arguments(cls) -> Size:
        """USERS ITEMS DIM K of the command line."""
        return cls(*map(int, sys.argv[1:5]))

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Vectors (users, dim) and (items, dim), the same in every process."""
        generator = torch.Generator().manual_seed(20)
        shapes = ((self.users, self.dim), (self.items, self.dim))
        users, items = (torch.randint(-_HIGHEST, _HIGHEST + 1, shape, generator=generator) for shape in shapes)
        return users.float(), items.float()

    def blocks(self) -> Iterator[slice]:
        """Runs of users."""
        for start in range(0, self.users, USERS_PER_BLOCK):
            yield slice(start, min(start + USERS_PER_BLOCK, self.users))


def checksum(first_user: int, rows: Tensor, scores: Tensor) -> dict[str, int]:
    """What answers of equal quality have in common: all scores, and the items above the last one, which may tie."""
    values = np.ascontiguousarray(scores.numpy().astype(np.int64).view(np.uint64))
    user = np.arange(first_user, first_user + len(rows), dtype=np.uint64)[:, None]
    place = np.arange(rows.shape[1], dtype=np.uint64)
    ranked = (values * np.uint64(31) + user * np.uint64(_MULTIPLIER)) * (2 * place + np.uint64(1))
    above = scores.numpy() > scores.numpy()[:, -1:]
    items = (rows.numpy().astype(np.uint64) + user * np.uint64(_MULTIPLIER)) * np.uint64(_MULTIPLIER)
    items ^= items >> np.uint64(29)
    return {"scores": int(ranked.sum(dtype=np.uint64)), "items": int(items[above].sum(dtype=np.uint64))}


def total(parts: list[dict[str, int]]) -> dict[str, str]:
    """The checksum of all blocks together."""
    return {name: f"{sum(part[name] for part in parts) % 2**64:016x}" for name in ("scores", "items")}


def say(began: float, parts: list[dict[str, int]]) -> None:
    """The line that ends an engine's run; ``began`` is when its work did."""
    said: dict[str, Any] = {"seconds": time.perf_counter() - began, "checksum": total(parts)}
    sys.stdout.write(json.dumps(said) + "\n")
