"""Encoded feature tables as tensors, so that a batch of rows is one indexing step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raycl.data.columns import whole
from raycl.data.features import Encoders

MAX_TOKENS = 32
"""Tokens of one feature that a row keeps; the first ones win."""


@dataclass(frozen=True)
class FeatureRows:
    """Features of some rows: one (rows, width) tensor of tokens a bag feature, and (rows, num_numbers) numbers.

    Token 0 means that there is none: unknown, or past the row's last token.
    """

    tokens: tuple[Tensor, ...]
    numbers: Tensor

    def __len__(self) -> int:
        return self.numbers.shape[0]

    def take(self, rows: Tensor) -> FeatureRows:
        """The features of ``rows``; a row of -1 takes the last row."""
        return FeatureRows(tuple(token[rows] for token in self.tokens), self.numbers[rows])

    def to(self, device: torch.device) -> FeatureRows:
        """The same on ``device``."""
        return FeatureRows(tuple(token.to(device) for token in self.tokens), self.numbers.to(device))


def from_table(
    encoded: pa.Table | None, encoders: Encoders, num_rows: int, *, unknown_row: bool = False
) -> FeatureRows:
    """Tensors of ``Encoders.encode``'s table; ``unknown_row`` appends a row without features, which -1 reaches."""
    extra = int(unknown_row)
    tokens = []
    for bag in encoders.bags:
        assert encoded is not None
        padded = _pad(encoded[bag.column])
        tokens.append(torch.from_numpy(np.concatenate([padded, np.zeros((extra, padded.shape[1]), np.int32)])))
    numbers = np.zeros((num_rows + extra, len(encoders.numerics)), dtype=np.float32)
    for column, numeric in enumerate(encoders.numerics):
        assert encoded is not None
        numbers[:num_rows, column] = encoded[numeric.column].to_numpy()
    return FeatureRows(tuple(tokens), torch.from_numpy(numbers))


def _pad(column: pa.ChunkedArray) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    lists = whole(column)
    offsets = lists.offsets.to_numpy().astype(np.int64)
    values = np.append(lists.values.to_numpy(zero_copy_only=False), 0).astype(np.int32)
    sizes = np.diff(offsets)
    width = int(min(max(sizes.max(initial=0), 1), MAX_TOKENS))
    columns = np.arange(width)
    inside = columns < sizes[:, None]
    return np.where(inside, values[np.where(inside, offsets[:-1, None] + columns, -1)], 0).astype(np.int32)
