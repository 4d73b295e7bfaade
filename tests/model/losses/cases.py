"""Small batches of every kind for the tests of losses: repeated items, more columns than rows, rows of weight 0."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from raycl.model.losses import negatives

Floats = list[float]


@dataclass(frozen=True)
class Case:
    """Arguments of the losses, in double precision."""

    users: Tensor
    items: Tensor
    own: Tensor
    ids: Tensor
    log_q: Tensor | None
    weights: Tensor
    temperature: float

    @property
    def negative(self) -> Tensor:
        return negatives.of(self.own, self.ids)

    def rows(self, rows: slice) -> Case:
        """Only these rows, against all columns."""
        return Case(
            self.users[rows], self.items, self.own[rows], self.ids, self.log_q, self.weights[rows], self.temperature
        )

    @functools.cached_property
    def _scores(self) -> list[Floats]:
        """Cosines of users and items, by hand."""
        users, items = self.users.tolist(), self.items.tolist()
        return [[sum(u * i for u, i in zip(user, item, strict=True)) for item in items] for user in users]

    def score(self, row: int, column: int) -> float:
        """Cosine of a user and an item."""
        return self._scores[row][column]

    def logit(self, row: int, column: int) -> float:
        return self.score(row, column) / self.temperature - (0.0 if self.log_q is None else float(self.log_q[column]))

    def against(self, row: int) -> list[int]:
        """Columns of other items than the row's own."""
        ids = self.ids.tolist()
        return [column for column, item in enumerate(ids) if item != ids[int(self.own[row])]]

    def mean_of_negatives(self, row: int, value: Callable[[float], float]) -> float:
        """The mean of ``value`` of the negatives' scores, by 1 / q; 0 where there are none."""
        columns = self.against(row)
        shares = [1.0 if self.log_q is None else math.exp(-float(self.log_q[column])) for column in columns]
        found = [value(self.score(row, column)) for column in columns]
        return sum(share * one for share, one in zip(shares, found, strict=True)) / sum(shares) if columns else 0.0

    def mean_of_rows(self, value: Callable[[int], float]) -> float:
        """Weighted, and divided by the number of rows."""
        return sum(float(self.weights[row]) * value(row) for row in range(len(self.users))) / len(self.users)


def vectors(rows: int, dim: int, generator: torch.Generator) -> Tensor:
    return normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=-1)


@st.composite
def cases(draw: st.DrawFn, min_rows: int = 1) -> Case:
    """Any case of up to 6 rows and 9 columns."""
    rows = draw(st.integers(min_rows, 6))
    columns = draw(st.integers(rows, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    num_ids = draw(st.integers(1, 9))
    log_q = torch.rand(num_ids, generator=generator, dtype=torch.float64).mul(0.3).clamp(min=1e-4).log()
    ids = torch.randint(num_ids, (columns,), generator=generator)
    weights = torch.rand(rows, generator=generator, dtype=torch.float64) * 3
    weights[torch.rand(rows, generator=generator) < 0.2] = 0.0
    return Case(
        vectors(rows, 4, generator),
        vectors(columns, 4, generator),
        torch.randperm(columns, generator=generator)[:rows],
        ids + 10,
        log_q[ids] if draw(st.booleans()) else None,
        weights,
        draw(st.sampled_from([0.05, 0.3, 1.0])),
    )


def every_case(test: Callable[[Case], None]) -> Callable[[], None]:
    """Run a test on many of ``cases``."""
    return settings(deadline=None, max_examples=60, derandomize=True)(given(cases())(test))


def check_contract(loss: Callable[[Case], Tensor], case: Case) -> None:
    """What every loss against negatives keeps, whatever its formula."""
    whole = loss(case)
    parts = [loss(case.rows(slice(row, row + 1))) for row in range(len(case.users))]
    torch.testing.assert_close(torch.stack(parts).mean(), whole, msg="equal parts average to the whole")
    for tensor in (case.users, case.items):
        tensor.requires_grad_()
    gradients = torch.autograd.grad(loss(case), [case.users, case.items], allow_unused=True)
    for found in gradients:
        assert found is not None
        assert found.isfinite().all()
    to_users = gradients[0]
    assert to_users is not None
    assert not to_users[case.weights == 0].any(), "a row of weight 0 has no gradient"
