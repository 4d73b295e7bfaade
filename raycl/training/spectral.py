"""Item vectors from who met what, by factorisation alone: a start for embeddings that training then moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_MORE, _ROUNDS = 10, 4
"""Directions beyond those that are wanted, and rounds of the iteration: both make the last ones exact enough."""


def vectors(user: Ints, row: Ints, num_users: int, num_rows: int, dim: int, seed: int) -> Vectors:
    """Vectors (num_rows, dim) of table rows whose events are (user, row), of length 1 in the mean; 0 without events.

    The leading right singular vectors of the table of users and rows in which an event counts one over the root of the
    number of rows of its user times the number of users of its row, so that rows which share users lie near each other,
    and a user's mean is near what the user meets next: the ideal low-pass filter of GF-CF (Shen et al., CIKM 2021,
    section 4). Columns beyond what a small table has are drawn by chance.
    """
    table, generator = _normalised(user, row, num_users, num_rows), np.random.default_rng(seed)
    leading = _leading(table, min(dim, *table.shape), generator)
    drawn = generator.standard_normal((num_rows, dim - leading.shape[1])) * num_rows**-0.5
    found = np.concatenate([leading, drawn], axis=1)
    some = np.bincount(row, minlength=num_rows) > 0
    found[~some] = 0.0
    return np.asarray(found / max(np.linalg.norm(found[some], axis=1).mean(), 1e-12), dtype=np.float32)


def _normalised(user: Ints, row: Ints, num_users: int, num_rows: int) -> sparse.csr_array:
    ones = np.ones(len(user), dtype=np.float32)
    met = sparse.csr_array((ones, (user, row)), shape=(num_users, num_rows))
    met.sum_duplicates()
    met.data[:] = 1.0
    of_users, of_rows = (np.maximum(met.sum(axis=axis), 1.0) ** -0.5 for axis in (1, 0))
    return sparse.csr_array(_diagonal(of_users) @ met @ _diagonal(of_rows))


def _leading(table: sparse.csr_array, count: int, generator: np.random.Generator) -> Vectors:
    """The first ``count`` right singular vectors (columns, count), by randomised subspace iteration.

    Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4.
    """
    width = min(count + _MORE, *table.shape)
    basis = generator.standard_normal((table.shape[1], width), dtype=np.float32)
    across = table.T.tocsr()
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(across @ (table @ basis))[0]
    seen = table @ basis
    _, turned = np.linalg.eigh((seen.T @ seen).astype(np.float64))  # ascending
    return np.asarray(basis @ turned[:, ::-1][:, :count].astype(np.float32))


def _diagonal(values: Any) -> Any:
    return sparse.diags_array(np.asarray(values, dtype=np.float32))
