"""Rows of the vocabulary, and users, to vectors: the towers' forward pass over whole tables."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from raycl.model.ensemble import AnyItemTower, AnyUserTower
from raycl.model.inputs import FeatureRows

_ROWS = 8_192


def items(tower: AnyItemTower, features: FeatureRows, first: int = 0) -> npt.NDArray[np.float32]:
    """Vectors (rows, dim) of the vocabulary rows from ``first`` on, whose ``features`` are given."""
    found = []
    device = next(tower.parameters()).device
    with torch.inference_mode():
        for start in range(0, len(features), _ROWS):
            within = torch.arange(start, min(start + _ROWS, len(features)))
            given = features.take(within).to(device)
            found.append(tower((within + first).to(device), given).cpu().numpy())
    return np.concatenate(found)


def users(
    tower: AnyUserTower,
    history: npt.NDArray[np.int32],
    user_row: npt.NDArray[np.int32] | None,
    features: FeatureRows,
    age_s: npt.NDArray[np.float32] | None = None,
    context: FeatureRows | None = None,
) -> npt.NDArray[np.float32]:
    """Vectors (users, dim) of users in these states; ``user_row`` -1 takes the last row of ``features``.

    Without ``user_row`` each user has a row of ``features``, in their order.
    ``age_s`` (users, max_history) is how many seconds ago each event was, negative or NaN where that is not known.
    ``context`` (users,) is what is known of each request.
    """
    found: list[npt.NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(history), _ROWS):
            part = slice(start, start + _ROWS)
            states = torch.from_numpy(history[part].astype(np.int64))
            known = features.part(part) if user_row is None else features.take(_of_users(user_row[part]))
            ages = None if age_s is None else torch.from_numpy(age_s[part])
            said = None if context is None else context.part(part)
            found.append(tower(states, known, ages, said).numpy())
    return found[0] if len(found) == 1 else np.concatenate([np.zeros((0, tower.dim), dtype=np.float32), *found])


def _of_users(user_row: npt.NDArray[np.int32]) -> torch.Tensor:
    return torch.from_numpy(user_row.astype(np.int64))
