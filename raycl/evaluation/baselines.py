"""What towers are measured beside: recent popularity, item KNN, RP3beta and ALS, learned from training events alone."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from raycl.config_evaluation import BaselineConfig
from raycl.evaluation import baseline_choice
from raycl.evaluation.baseline_choice import Questions
from raycl.evaluation.metrics import Floats, Ints

_CELLS = 20_000_000
"""Of a product of sparse matrices that is held at once, at most, but for a row that has more."""


@dataclass(frozen=True)
class Events:
    """Training events of one log; ``user`` and ``item`` are rows."""

    user: Ints
    item: Ints
    time_ms: Ints
    num_users: int
    num_items: int

    def table(self) -> sparse.csr_array:
        """(num_users, num_items): 1 where a user met an item."""
        counted = sparse.csr_array(
            (np.ones(len(self.user), np.float32), (self.user, self.item)), shape=(self.num_users, self.num_items)
        )
        counted.sum_duplicates()
        counted.data[:] = 1.0
        return counted


@dataclass(frozen=True)
class Fitted:
    """What was learned, by baseline: counts (num_items,), neighbours (num_items, num_items) or ALS item factors."""

    counts: dict[str, Ints] = field(default_factory=dict)
    neighbours: dict[str, sparse.csr_array] = field(default_factory=dict)
    factors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    settings: dict[str, dict[str, float]] = field(default_factory=dict)
    """What was chosen for this log, by baseline and field of the config."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why, by baseline."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything but ``settings`` and ``left_out``, for ``numpy.savez``."""
        found: dict[str, npt.NDArray[Any]] = {f"counts.{name}": counts for name, counts in self.counts.items()}
        found |= {f"factors.{name}": factors for name, factors in self.factors.items()}
        for name, table in self.neighbours.items():
            parts = {"data": table.data, "indices": table.indices, "indptr": table.indptr}
            found |= {f"neighbours.{name}.{part}": array for part, array in parts.items()}
        return found

    @classmethod
    def from_arrays(
        cls, arrays: dict[str, npt.NDArray[Any]], settings: dict[str, dict[str, float]], left_out: dict[str, str]
    ) -> Fitted:
        """The inverse of ``arrays``."""
        made = cls(settings=settings, left_out=left_out)
        for key, array in arrays.items():
            kind, name, *part = key.split(".")
            if kind == "counts":
                made.counts[name] = array
            elif kind == "factors":
                made.factors[name] = array
            elif part == ["data"]:
                rest = [arrays[f"neighbours.{name}.{other}"] for other in ("indices", "indptr")]
                size = len(rest[1]) - 1
                made.neighbours[name] = sparse.csr_array((array, *rest), shape=(size, size))
        return made


def fit(events: Events, config: BaselineConfig, seed: int) -> Fitted:
    """Learn each baseline of the config; one that cannot be is left out with the reason."""
    made = Fitted()
    table = events.table()
    asked = baseline_choice.questions(events.user, events.item, events.time_ms, events.num_items, seed)
    for name in config.names:
        if not len(events.user):
            made.left_out[name] = "there are no training events"
        elif name == "recent_popularity":
            if events.time_ms.min() == events.time_ms.max():
                made.left_out[name] = "the log has no order in time"
            else:
                made.counts[name] = recent_counts(events, config.recent_share)
        elif name == "item_knn":
            made.neighbours[name] = cosine_neighbours(table, config.neighbours)
        elif name == "rp3beta":
            beta = best_beta(asked, config)
            made.settings[name] = {"rp3_beta": beta}
            made.neighbours[name] = rp3beta(table, config.neighbours, config.rp3_alpha, beta)
        elif importlib.util.find_spec("implicit") is None:
            made.left_out[name] = "implicit is not installed: pip install 'raycl[als]', and evaluate with --force"
        else:
            alpha = best_alpha(asked, config, seed)
            made.settings[name] = {"als_alpha": alpha}
            made.factors[name] = als(table, config, alpha, seed)
    return made


def best_beta(asked: Questions, config: BaselineConfig) -> float:
    """The ``rp3_beta`` of the config that answers best."""

    def quality(beta: float) -> float:
        near = rp3beta(asked.table, config.neighbours, config.rp3_alpha, beta)
        return baseline_choice.quality(asked, lambda history: (history @ near).toarray())

    return baseline_choice.best(config.rp3_beta, quality)


def best_alpha(asked: Questions, config: BaselineConfig, seed: int) -> float:
    """The ``als_alpha`` of the config that answers best."""

    def quality(alpha: float) -> float:
        items = als(asked.table, config, alpha, seed)
        return baseline_choice.quality(
            asked, lambda history: als_users(items, history, config.als_regularization, alpha) @ items.T
        )

    return baseline_choice.best(config.als_alpha, quality)


def recent_counts(events: Events, share: float) -> Ints:
    """Events of each item among the newest ``share`` of all, with those of the oldest moment among them."""
    oldest = max(len(events.time_ms) - max(round(share * len(events.time_ms)), 1), 0)
    since = np.partition(events.time_ms, oldest)[oldest]
    return np.bincount(events.item[events.time_ms >= since], minlength=events.num_items)


def cosine_neighbours(table: sparse.csr_array, neighbours: int) -> sparse.csr_array:
    """Of each item the cosine of its users with those of its nearest items, (num_items, num_items)."""
    norms = np.sqrt(table.sum(axis=0))
    scaled = (table @ _diagonal(1.0 / np.maximum(norms, 1.0))).tocsr()
    return _nearest(scaled.T.tocsr(), scaled, neighbours)


def rp3beta(table: sparse.csr_array, neighbours: int, alpha: float, beta: float) -> sparse.csr_array:
    """Chances of a walk from an item to one of its users to one of the user's items, (num_items, num_items).

    Each step to the power of ``alpha``, and the sum over the number of users of the item reached to the power of
    ``beta`` (Paudel et al., TiiS 2017).
    """
    num_users, num_items = (np.maximum(table.sum(axis=axis), 1.0) for axis in (0, 1))
    to_user = (_diagonal(1.0 / num_users) @ table.T).tocsr()
    to_item = (_diagonal(1.0 / num_items) @ table).tocsr()
    to_user.data **= alpha
    to_item.data **= alpha
    return _nearest(to_user, (to_item @ _diagonal(num_users**-beta)).tocsr(), neighbours)


def als(table: sparse.csr_array, config: BaselineConfig, alpha: float, seed: int) -> npt.NDArray[np.float32]:
    """Item factors (num_items, factors) of implicit feedback (Hu et al., ICDM 2008), by the library ``implicit``."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):  # it has threads of its own
        model = AlternatingLeastSquares(
            factors=config.als_factors,
            regularization=config.als_regularization,
            alpha=alpha,
            iterations=config.als_iterations,
            random_state=seed,
        )
        model.fit(sparse.csr_matrix(table), show_progress=False)
    return np.asarray(model.item_factors, dtype=np.float32)


def als_users(
    factors: npt.NDArray[np.float32], history: sparse.csr_array, regularization: float, alpha: float
) -> npt.NDArray[np.float32]:
    """Factors (users, factors) of users with these histories (users, num_items), the items' being fixed."""
    wide = factors.astype(np.float64)
    fixed = wide.T @ wide + regularization * np.eye(wide.shape[1])
    found = np.zeros((history.shape[0], wide.shape[1]))
    for user in range(len(found)):
        mine = wide[history.indices[history.indptr[user] : history.indptr[user + 1]]]
        if len(mine):
            sure = fixed + (alpha - 1.0) * (mine.T @ mine)
            found[user] = np.linalg.solve(sure, alpha * mine.sum(0))
    return found.astype(np.float32)


def _nearest(left: sparse.csr_array, right: sparse.csr_array, neighbours: int) -> sparse.csr_array:
    """The largest ``neighbours`` of each row of ``left @ right`` besides its own column, a run of rows at a time.

    Of equal values the lower column.
    """
    size = left.shape[0]
    wide = np.minimum(np.add.reduceat(np.append(np.diff(right.indptr)[left.indices], 0), left.indptr[:-1]), size)
    wide[np.diff(left.indptr) == 0] = 0
    runs = np.cumsum(wide) // _CELLS
    parts = []
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        product = (left[rows[0] : rows[-1] + 1] @ right).tocoo()
        row, column = product.coords
        kept = column != row + rows[0]
        row, column, value = row[kept], column[kept], product.data[kept]
        order = np.lexsort((column, -value, row))
        sizes = np.bincount(row, minlength=len(rows))
        place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        best = order[place < neighbours]
        parts.append(
            sparse.csr_array((value[best], (row[best], column[best])), shape=(len(rows), size), dtype=np.float32)
        )
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_array((size, size), dtype=np.float32)


def _diagonal(values: Floats) -> Any:
    return sparse.diags_array(np.asarray(values, dtype=np.float32))
