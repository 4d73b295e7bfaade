"""Items that only one row is compared with, against the same items as columns that no other row looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from raycl.model.losses import bpr, corrected_softmax, cosine_margin, multi_positive, negatives, softmax, triplet

ROWS, COLUMNS, PRIVATE, DIM = 5, 8, 3, 6
MORE: dict[str, tuple[Any, ...]] = {
    "softmax": (0.3,),
    "corrected_softmax": (0.3,),
    "multi_positive": (0.3,),
    "bpr": (0.3,),
    "triplet": (0.4,),
    "cosine_margin": (0.1, 0.7),
}
LOSSES: dict[str, Callable[..., Tensor]] = {
    "softmax": softmax.loss,
    "corrected_softmax": corrected_softmax.loss,
    "multi_positive": multi_positive.loss,
    "bpr": bpr.loss,
    "triplet": triplet.loss,
    "cosine_margin": cosine_margin.loss,
}


@pytest.mark.parametrize(
    ("kind", "corrected"),
    [(kind, corrected) for kind in LOSSES for corrected in (True, False) if corrected or kind != "corrected_softmax"],
)
def test_private_columns_are_columns_that_no_other_row_looks_at(kind: str, corrected: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    users, items, private = (
        normalize(torch.randn(*shape, DIM, generator=generator, dtype=torch.float64), dim=-1).requires_grad_()
        for shape in ((ROWS,), (COLUMNS,), (ROWS, PRIVATE))
    )
    own, weights = torch.arange(ROWS), torch.rand(ROWS, generator=generator, dtype=torch.float64)
    shared = negatives.of(own, torch.tensor([0, 1, 2, 0, 4, 5, 1, 7]))
    apart = torch.rand(ROWS, PRIVATE, generator=generator) < 0.7
    log_q = torch.rand(COLUMNS + PRIVATE, generator=generator, dtype=torch.float64).log() - 2
    log_q[COLUMNS:] = log_q[COLUMNS]  # as it is in training, so that columns may be repeated for each row

    def marked(columns: int) -> Tensor:
        """Own columns as ``multi_positive`` takes them, or as all others do."""
        return own if kind != "multi_positive" else torch.eye(ROWS, columns, dtype=torch.bool)

    def q(repeats: int) -> Tensor | None:
        return torch.cat([log_q[:COLUMNS], log_q[COLUMNS:].repeat(repeats)]) if corrected else None

    given = (users, items, marked(COLUMNS + PRIVATE), torch.cat([shared, apart], 1), q(1), weights, *MORE[kind])
    found = LOSSES[kind](*given, private)
    block = torch.zeros(ROWS, ROWS, PRIVATE, dtype=torch.bool)
    block[own, own] = apart
    columns = torch.cat([items, private.reshape(-1, DIM)])
    wide = torch.cat([shared, block.reshape(ROWS, -1)], 1)
    expected = LOSSES[kind](users, columns, marked(columns.shape[0]), wide, q(ROWS), weights, *MORE[kind])
    torch.testing.assert_close(found, expected)
    for one, two in zip(
        torch.autograd.grad(found, (users, items, private)),
        torch.autograd.grad(expected, (users, items, private)),
        strict=True,
    ):
        torch.testing.assert_close(one, two)
    plain = LOSSES[kind](
        users, items, marked(COLUMNS), shared, None if not corrected else log_q[:COLUMNS], weights, *MORE[kind]
    )
    assert abs(float((found - plain).detach())) > 1e-4
