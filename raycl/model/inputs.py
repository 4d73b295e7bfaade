"""Encoded feature tables as tensors, so that a batch of rows is one indexing step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from raycl.data.columns import whole
from raycl.data.features import PADDING, UNKNOWN, Encoders
from raycl.model.spec import FeatureSizes


@dataclass(frozen=True)
class FeatureRows:
    """Features of some rows: one (rows, width) tensor of tokens a bag feature, and (rows, num_numbers) numbers.

    Token ``PADDING`` fills a row up, and ``UNKNOWN`` says that nothing is known. An unknown number is NaN, and so is
    all of an unknown vector.
    """

    tokens: tuple[Tensor, ...]
    numbers: Tensor
    vectors: tuple[Tensor, ...] = ()
    """One (rows, length) tensor a given vector."""

    def __len__(self) -> int:
        return self.numbers.shape[0]

    def take(self, rows: Tensor) -> FeatureRows:
        """The features of ``rows``; a row of -1 takes the last row."""
        return FeatureRows(
            tuple(token[rows] for token in self.tokens),
            self.numbers[rows],
            tuple(vector[rows] for vector in self.vectors),
        )

    def part(self, rows: slice) -> FeatureRows:
        """The features of a run of rows."""
        tokens, vectors = (tuple(one[rows] for one in many) for many in (self.tokens, self.vectors))
        return FeatureRows(tokens, self.numbers[rows], vectors)

    def to(self, device: torch.device) -> FeatureRows:
        """The same on ``device``."""
        return FeatureRows(
            tuple(token.to(device) for token in self.tokens),
            self.numbers.to(device),
            tuple(vector.to(device) for vector in self.vectors),
        )


def unknown(sizes: FeatureSizes, num_rows: int, device: torch.device) -> FeatureRows:
    """Rows of which nothing is known."""
    tokens = tuple(torch.full((num_rows, 1), UNKNOWN, dtype=torch.int32, device=device) for _ in sizes.bag_tokens)
    numbers = torch.full((num_rows, sizes.num_numbers), torch.nan, device=device)
    vectors = tuple(torch.full((num_rows, length), torch.nan, device=device) for length in sizes.vector_lengths)
    return FeatureRows(tokens, numbers, vectors)


def from_table(
    encoded: pa.Table | None, encoders: Encoders, num_rows: int, *, unknown_row: bool = False
) -> FeatureRows:
    """Tensors of ``Encoders.encode``'s table; ``unknown_row`` appends a row of unknowns, which -1 reaches."""
    extra = int(unknown_row)
    if not encoders.features:
        return FeatureRows((), torch.empty((num_rows + extra, 0)))
    tokens = [_padded(_of(encoded, bag.column), extra) for bag in encoders.bags]
    numbers = np.full((num_rows + extra, len(encoders.numerics)), np.nan, dtype=np.float32)
    for column, numeric in enumerate(encoders.numerics):
        numbers[:num_rows, column] = _of(encoded, numeric.column).to_numpy(zero_copy_only=False)
    vectors = []
    for given in encoders.vectors:
        lists = _of(encoded, given.column)
        found = np.full((num_rows + extra, given.length), np.nan, dtype=np.float32)
        valid = np.flatnonzero(lists.is_valid().to_numpy(zero_copy_only=False))
        found[valid] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, given.length)
        vectors.append(torch.from_numpy(found))
    return FeatureRows(tuple(map(torch.from_numpy, tokens)), torch.from_numpy(numbers), tuple(vectors))


def _of(encoded: pa.Table | None, column: str) -> Any:
    assert encoded is not None
    return whole(encoded[column])


def _padded(lists: Any, extra: int) -> npt.NDArray[np.int32]:
    """Lists of tokens as (rows + extra, width), filled up with padding; the ``extra`` rows are unknown."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    sizes = np.diff(offsets)
    padded = np.full((len(sizes) + extra, max(sizes.max(initial=0), 1)), PADDING, dtype=np.int32)
    padded[len(sizes) :, 0] = UNKNOWN
    inside = np.arange(padded.shape[1]) < sizes[:, None]
    padded[: len(sizes)][inside] = lists.flatten().to_numpy(zero_copy_only=False)
    return padded
