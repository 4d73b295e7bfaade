"""What a step tells of itself beside its loss, measured on a sample of its rows and left on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raycl.model.row_table import RowTable
from raycl.training import row_gradients
from raycl.training.passes import Passes

_SAMPLE = 128
"""Rows at most: what is measured costs the same for any batch."""


class Probe:
    """Measures the steps that are begun with ``begin``; of all others it costs nothing."""

    def __init__(self) -> None:
        self._values: dict[str, Tensor] | None = None
        self._whole = False

    def begin(self, *, whole: bool) -> None:
        """Measure the next step: the ``whole`` of it, or what it knows anyway."""
        self._values, self._whole = {}, whole

    def take(self) -> dict[str, Tensor]:
        """The scalars of the step that was measured, none if it was not; they are fetched by whoever reads them."""
        found, self._values = self._values or {}, None
        return found

    @torch.no_grad()
    def vectors(self, users: Tensor, items: Tensor, rows: Passes) -> None:
        """Alignment and uniformity of this process's first pairs; ``users`` and ``items`` are those of all ``rows``."""
        if self._values is not None and self._whole:
            some = min(rows.batch_rows, _SAMPLE)
            mine, own = users[:some].detach().float(), items[:some].detach().float()
            self._values["alignment"] = alignment(mine, own)
            self._values["user_uniformity"] = uniformity(mine)
            distinct = rows.batch_items[:some]
            self._values["item_uniformity"] = uniformity(own, distinct[:, None] != distinct)

    @torch.no_grad()
    def gradients(
        self, norm: Tensor, dense: Sequence[nn.Parameter], tables: Sequence[RowTable], temperature: Tensor | float
    ) -> None:
        """Norms before the step is made: ``norm`` is that of the gradient over all processes.

        ``embedding_norm`` is the mean length of rows that the step has touched.
        """
        if self._values is None:
            return
        self._values["gradient_norm"] = norm.detach()
        if isinstance(temperature, Tensor):
            self._values["temperature"] = temperature.detach()
        if not self._whole:
            return
        self._values["weight_norm"] = torch.nn.utils.get_total_norm([parameter.detach() for parameter in dense])
        touched = [(table.weight.detach(), row_gradients.parts(table.weight)[0][:_SAMPLE]) for table in tables]
        lengths = [weight[rows].norm(dim=1) for weight, rows in touched if len(rows)]
        if lengths:
            self._values["embedding_norm"] = torch.cat(lengths).mean()


def alignment(users: Tensor, items: Tensor) -> Tensor:
    """Mean squared distance of the unit vectors of a pair: 0 is best (Wang and Isola, ICML 2020, equation 3)."""
    return (users - items).square().sum(1).mean()


def uniformity(vectors: Tensor, counts: Tensor | None = None) -> Tensor:
    """Log of the mean of exp(-2 d²) over pairs of unit vectors with distance d: the lower, the more evenly spread.

    Wang and Isola, ICML 2020, equation 4. Of the pairs of rows (rows, rows) those that do not count are left out, by
    default each row with itself. NaN where no pair counts.
    """
    if counts is None:
        counts = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    distances = (2.0 - 2.0 * vectors @ vectors.T).clamp(min=0.0)
    return torch.where(counts, (-2.0 * distances).exp(), 0.0).sum().div(counts.sum()).log()
