"""Two views of each row against a loop over both directions and both kinds of view."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raycl.model.losses import view_contrast
from tests.model.losses.cases import Case, every_case, vectors


def views(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Two views of every row, and which thing each row is of."""
    generator = torch.Generator().manual_seed(len(case.ids))
    rows = len(case.users)
    return vectors(rows, 4, generator), vectors(rows, 4, generator), case.ids[case.own]


def loss(case: Case, rows: slice = slice(None)) -> Tensor:
    first, second, things = views(case)
    places = torch.arange(len(things))[rows]
    differs = things[rows][:, None] != things[None, :]
    return view_contrast.loss(
        first[rows], second[rows], first, second, places, differs, case.weights[rows], case.temperature
    )


def naive(case: Case) -> float:
    first, second, things = views(case)

    def of_row(row: int) -> float:
        total = 0.0
        for mine, other in ((first, second), (second, first)):
            own = math.exp(float(mine[row] @ other[row]) / case.temperature)
            rest = sum(
                math.exp(float(mine[row] @ view[column]) / case.temperature)
                for view in (first, second)
                for column in range(len(things))
                if things[column] != things[row]
            )
            total += math.log((own + rest) / own) / 2
        return total

    return case.mean_of_rows(of_row)


@every_case
def test_the_loss_is_that_of_a_loop(case: Case) -> None:
    assert loss(case).item() == pytest.approx(naive(case), rel=1e-9, abs=1e-12)


@every_case
def test_equal_parts_average_to_the_whole(case: Case) -> None:
    parts = [loss(case, slice(row, row + 1)) for row in range(len(case.users))]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(case))
