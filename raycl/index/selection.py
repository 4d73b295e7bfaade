"""Which rows of the catalogue a search may find: as a truth value a row, as rows, and as FAISS takes it."""

from __future__ import annotations

import functools
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


class Selection:
    """The rows that are ``kept`` (num_rows,); it is shared by threads and requests, so nobody changes it."""

    def __init__(self, kept: Mask) -> None:
        self.kept = kept
        self.count = int(np.count_nonzero(kept))

    @functools.cached_property
    def rows(self) -> Rows:
        """The kept rows (count,), ascending."""
        return np.flatnonzero(self.kept)

    @functools.cached_property
    def selector(self) -> Any:
        """A FAISS selector of one bit a row: a search looks up each row that it comes across in it."""
        bitmap: Any = faiss.IDSelectorBitmap  # takes an array, whatever its stub says
        return bitmap(np.packbits(self.kept, bitorder="little"))
