"""What queries say of user, request and times, as a release's encoders and towers take it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.data.features import Encoders
from raycl.errors import InputError
from raycl.serving.api import Query


class Reader:
    """Encodes what queries say in one of their fields."""

    def __init__(self, name: str, encoders: Encoders) -> None:
        """``name``: of the field, for messages."""
        self._name, self._encoders = name, encoders
        self._known = [feature.column for feature in encoders.features]
        self.nothing: pa.Table = encoders.encode_rows([{}], name)
        """Where nothing is said: one row."""

    def read(self, said: Sequence[Mapping[str, Any]]) -> list[pa.Table | InputError]:
        """Of each query one row, or the InputError of what cannot be encoded; all that can are encoded together."""
        try:
            return self._together(said)
        except InputError:
            return [self._alone(one) for one in said]

    def together(self, rows: Sequence[pa.Table]) -> pa.Table:
        """Rows that ``read`` returned, as one table; it has no columns where the release knows no features."""
        return pa.concat_tables(rows) if self._known else self.nothing

    def _together(self, said: Sequence[Mapping[str, Any]]) -> list[pa.Table | InputError]:
        for one in said:
            for column in one.keys() - set(self._known):
                names = ", ".join(self._known) if self._known else "none"
                value = repr(one[column])[:80]
                raise InputError(f"{self._name}.{column}={value}: the release knows no such feature; it knows {names}")
        found: list[pa.Table | InputError] = [self.nothing] * len(said)
        places = [place for place, one in enumerate(said) if one]
        if places:
            encoded = self._encoders.encode_rows([said[place] for place in places], self._name)
            for row, place in enumerate(places):
                found[place] = encoded.slice(row, 1)
        return found

    def _alone(self, said: Mapping[str, Any]) -> pa.Table | InputError:
        try:
            return self._together([said])[0]
        except InputError as error:
            return error


def good(read: pa.Table | InputError) -> pa.Table:
    """What was read; raises where it is an error."""
    if isinstance(read, InputError):
        raise read
    return read


def ages(query: Query, fresh: Sequence[float], clock: Callable[[], float]) -> npt.NDArray[np.float32]:
    """Seconds since each event of the history and then of those at the times ``fresh``, NaN where that is not known.

    InputError where there is not one time for each event of the history.
    """
    if query.times and len(query.times) != len(query.history):
        raise InputError(
            f"times has {len(query.times)} values and history {len(query.history)}: give the time of each event, null"
            f" where it is not known, or leave times out"
        )
    if not query.times and not fresh:
        return np.full(len(query.history), np.nan, dtype=np.float32)
    times = np.array([*(query.times or [None] * len(query.history)), *fresh], dtype=np.float64)
    with np.errstate(over="ignore"):
        found = ((clock() if query.time is None else query.time) - times).astype(np.float32)
    return np.where(np.isfinite(found), found, np.float32(np.nan))
