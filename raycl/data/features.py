"""Columns of the catalogue and of the user table, as the numbers that a tower reads."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl.config import Feature
from raycl.data.columns import whole
from raycl.errors import InputError


@dataclass(frozen=True)
class Encoder:
    """One fitted feature: a value's token is its place in ``values`` plus 1, and 0 stands for unknown.

    A numeric feature is ``(value - mean) / deviation``, unknown as 0; text has no values, only hashed words.
    """

    column: str
    kind: str
    separator: str
    num_buckets: int
    values: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0

    @property
    def num_tokens(self) -> int:
        """Tokens that this feature can make, the unknown one included; 0 for a numeric feature."""
        return {"numeric": 0, "text": self.num_buckets + 1}.get(self.kind, len(self.values) + 1)

    @functools.cached_property
    def _token_of(self) -> dict[str, int]:
        """Made once: a server encodes a row or two at a time, and there may be 100,000 values."""
        return {value: place + 1 for place, value in enumerate(self.values)}

    @classmethod
    def fit(cls, feature: Feature, column: Any) -> Self:
        """Learn values (most frequent first, ties by value) or mean and deviation from one Arrow column."""
        if feature.kind == "numeric":
            numbers = _numbers(column)
            known = numbers[np.isfinite(numbers)]
            mean = float(known.mean()) if known.size else 0.0
            deviation = float(known.std()) if known.size else 1.0
            return cls(feature.column, feature.kind, "", 0, (), mean, deviation or 1.0)
        if feature.kind == "text":
            return cls(feature.column, feature.kind, "", feature.num_buckets)
        _, texts = _texts(column, feature.kind, feature.separator)
        counts = sorted((-row["counts"], row["values"]) for row in pc.value_counts(texts).to_pylist())
        values = tuple(value for _, value in counts[: feature.max_values])
        return cls(feature.column, feature.kind, feature.separator, 0, values)

    def tokens(self, column: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Offsets of shape (rows + 1,) and the tokens of all rows, end to end."""
        owners, texts = _texts(column, self.kind, self.separator)
        if self.kind == "text":
            words = [zlib.crc32(word.encode()) % self.num_buckets + 1 for word in texts.to_pylist()]
            found = np.array(words, dtype=np.int32)
        else:
            distinct = texts.dictionary_encode()
            known = [self._token_of.get(value, 0) for value in distinct.dictionary.to_pylist()]
            found = np.array(known, dtype=np.int32)[distinct.indices.to_numpy(zero_copy_only=False)]
        counts = np.bincount(owners, minlength=len(column))
        return np.concatenate([[0], np.cumsum(counts)]), found

    def numbers(self, column: Any) -> npt.NDArray[np.float32]:
        """Standardised values of shape (rows,)."""
        standard = (_numbers(column) - self.mean) / self.deviation
        return np.nan_to_num(standard, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)

    def plain(self, column: Any) -> Any:
        """The values before they are fitted: finite float64, text, or lists of text; null where unknown."""
        if self.kind == "numeric":
            numbers = _numbers(column)
            return pa.array(numbers, mask=np.isnan(numbers))
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        return column.cast(pa.large_list(pa.large_string()) if is_list else pa.large_string())


@dataclass(frozen=True)
class Encoders:
    """The fitted features of one table, in config order."""

    features: tuple[Encoder, ...] = field(default=())

    @property
    def bags(self) -> tuple[Encoder, ...]:
        """Features that become tokens."""
        return tuple(feature for feature in self.features if feature.kind != "numeric")

    @property
    def numerics(self) -> tuple[Encoder, ...]:
        """Features that become one number."""
        return tuple(feature for feature in self.features if feature.kind == "numeric")

    @classmethod
    def fit(cls, features: Sequence[Feature], table: pa.Table) -> Self:
        """Fit each feature to its column of ``table``."""
        fitted = []
        for feature in features:
            try:
                fitted.append(Encoder.fit(feature, whole(table[feature.column])))
            except pa.ArrowException as error:
                raise InputError(f"column '{feature.column}' is no {feature.kind} feature: {error}") from error
        return cls(tuple(fitted))

    def encode(self, table: pa.Table) -> pa.Table:
        """Encode each feature: list<int32> for tokens, float32 for numbers, under the feature's own name."""
        encoded: dict[str, Any] = {}
        for feature in self.features:
            column = whole(table[feature.column])
            if feature.kind == "numeric":
                encoded[feature.column] = pa.array(feature.numbers(column))
            else:
                offsets, tokens = feature.tokens(column)
                encoded[feature.column] = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(tokens))
        return pa.table(encoded) if encoded else pa.table({"_": pa.nulls(table.num_rows)}).select([])

    def plain(self, table: pa.Table) -> pa.Array:
        """The table's values before encoding, a struct a row, that ``encode_rows`` encodes as ``encode`` the table.

        Numbers are float64, finite or null; the rest is text or lists of text.
        """
        columns = [feature.plain(whole(table[feature.column])) for feature in self.features]
        return pa.StructArray.from_arrays(columns, [feature.column for feature in self.features])

    def encode_rows(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Encode plain dictionaries; an absent or null feature is unknown. InputError for a value of a wrong type."""
        columns = {}
        for feature in self.features:
            values = [row.get(feature.column) for row in rows]
            try:
                columns[feature.column] = _plain(values, feature.kind, feature.separator)
            except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
                raise InputError(
                    f"user.{feature.column}: {values[0]!r} is not a {feature.kind} value ({error})"
                ) from error
        return self.encode(pa.table(columns)) if columns else self.encode(pa.table({"_": pa.nulls(len(rows))}))

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values that ``from_json`` reads back."""
        return [asdict(feature) for feature in self.features]

    @classmethod
    def from_json(cls, plain: Sequence[Mapping[str, Any]]) -> Self:
        """The inverse of ``to_json``."""
        return cls(tuple(Encoder(**{**entry, "values": tuple(entry["values"])}) for entry in plain))


def _plain(values: list[Any], kind: str, separator: str) -> Any:
    if kind == "numeric":
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if kind == "multi" and any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) else (_text(value) or "").split(separator) for value in values]
        return pa.array([[_text(part) for part in value] for value in lists], pa.large_list(pa.large_string()))
    return pa.array([_text(value) for value in values], pa.large_string())


def _text(value: Any) -> str | None:
    """The text that Arrow makes of the same value in a table: ``true``, not ``True``."""
    text: str | None = value if isinstance(value, str) else pa.scalar(value).cast(pa.large_string()).as_py()
    return text


def _numbers(column: Any) -> npt.NDArray[np.float64]:
    numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _texts(column: Any, kind: str, separator: str) -> tuple[npt.NDArray[np.int64], Any]:
    """The row that owns each text value, and the values, without nulls and blanks."""
    if kind == "text":
        words = pc.split_pattern_regex(pc.utf8_lower(column.cast(pa.large_string())), r"[^\p{L}\p{N}]+")
        owners, texts = pc.list_parent_indices(words), pc.list_flatten(words)
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        owners, texts = pc.list_parent_indices(column), pc.list_flatten(column)
    elif kind == "multi":
        parts = pc.split_pattern(column.cast(pa.large_string()), separator)
        owners, texts = pc.list_parent_indices(parts), pc.list_flatten(parts)
    else:
        owners, texts = pa.array(np.arange(len(column))), column
    texts = texts.cast(pa.large_string())
    kept = pc.fill_null(pc.not_equal(texts, ""), False)
    return owners.filter(kept).to_numpy(zero_copy_only=False).astype(np.int64), texts.filter(kept)
