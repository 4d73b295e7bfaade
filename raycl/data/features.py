"""Columns of the catalogue and of the user table, as the numbers that a tower reads."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl.config import Feature
from raycl.data import feature_values
from raycl.data.columns import whole
from raycl.data.hashing import hash_ids, mix
from raycl.errors import InputError

PADDING = 0
"""The token of nothing: it fills rows up to the longest, and no encoder makes it."""

UNKNOWN = 1
"""The token of a row of which nothing is known: its value is null, blank or unseen. A tower learns its embedding."""

_FIRST = 2
"""The first token that stands for a value."""


@dataclass(frozen=True)
class Encoder:
    """One fitted feature: what of a column a tower reads as tokens, as one number, or as one vector.

    A categorical value's token is its place in ``values`` plus 2; a bucket's is its number plus 2.
    """

    column: str
    kind: str
    separator: str
    num_buckets: int
    values: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0
    """Mean and deviation of the number, after its transform."""
    transform: str = "standard"
    edges: tuple[float, ...] = ()
    """Of a number in buckets: where each but the first begins."""
    num_hashes: int = 1
    ngrams: int = 0
    length: int = 0
    max_tokens: int = 32

    @property
    def form(self) -> str:
        """``tokens``, ``number`` or ``vector``."""
        if self.kind == "vector":
            return "vector"
        return "number" if self.kind == "numeric" and self.transform != "buckets" else "tokens"

    @property
    def num_tokens(self) -> int:
        """Tokens that an embedding of this feature needs, padding and unknown among them; 0 where there are none."""
        if self.form != "tokens":
            return 0
        if self.kind == "numeric":
            return len(self.edges) + 1 + _FIRST
        return (self.num_buckets if self.kind in ("text", "hashed") else len(self.values)) + _FIRST

    @functools.cached_property
    def _token_of(self) -> dict[str, int]:
        """Made once: a server encodes a row or two at a time, and there may be 100,000 values."""
        return {value: place + _FIRST for place, value in enumerate(self.values)}

    @classmethod
    def fit(cls, feature: Feature, column: Any) -> Self:
        """Learn what the kind needs of one Arrow column.

        Values, the most frequent first and ties by value; mean and deviation, or the edges of buckets that hold equally
        many values. InputError for a vector whose length no row has.
        """
        made = cls(
            feature.column,
            feature.kind,
            feature.separator if feature.kind == "multi" else "",
            feature.buckets,
            transform=feature.transform,
            num_hashes=feature.num_hashes if feature.kind == "hashed" else 1,
            ngrams=feature.ngrams or 0,
            length=feature.length or 0,
            max_tokens=feature.max_tokens,
        )
        learned: dict[str, Any] = {}
        if feature.kind == "numeric":
            learned = made._learn_numbers(column)
        elif feature.kind in ("categorical", "multi"):
            _, texts = feature_values.texts(column, feature.kind, feature.separator)
            counts = sorted((-row["counts"], row["values"]) for row in pc.value_counts(texts).to_pylist())
            learned = {"values": tuple(value for _, value in counts[: feature.max_values])}
        elif feature.kind == "vector":
            made._require_length(column)
        return replace(made, **learned)

    def _learn_numbers(self, column: Any) -> dict[str, Any]:
        known = self._transformed(column)
        known = known[np.isfinite(known)]
        if self.transform == "buckets":
            shares = np.arange(1, self.num_buckets) / self.num_buckets
            edges = np.unique(np.quantile(known, shares, method="higher")) if known.size else known
            return {"edges": tuple(edges.tolist())}
        if not known.size:
            return {}
        return {"mean": float(known.mean()), "deviation": float(known.std()) or 1.0}

    def _require_length(self, column: Any) -> None:
        common = feature_values.common_length(column)
        if common is None or not np.isnan(feature_values.vectors(column, self.length)).any(axis=1).all():
            return
        remedy = (
            f"most have {common}: set length={common}" if common != self.length else "none of them has finite numbers"
        )
        raise InputError(f"column '{self.column}' holds no vector of length={self.length}; of its lists {remedy}")

    def tokens(self, column: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Offsets of shape (rows + 1,) and the tokens of all rows, end to end.

        A row keeps its first ``max_tokens``. Unseen values are passed over beside known ones; a row with none that is
        known has the token ``UNKNOWN`` alone.
        """
        owners, found = self._known_tokens(column)
        starts = np.searchsorted(owners, np.arange(len(column) + 1))
        place = np.arange(len(found)) - starts[owners]
        counts = np.minimum(np.diff(starts), self.max_tokens)
        offsets = np.append(0, np.cumsum(np.maximum(counts, 1)))
        kept = place < self.max_tokens
        tokens = np.full(offsets[-1], UNKNOWN, dtype=np.int32)
        tokens[offsets[owners[kept]] + place[kept]] = found[kept]
        return offsets, tokens

    def _known_tokens(self, column: Any) -> tuple[feature_values.Owners, npt.NDArray[np.int64]]:
        """The tokens of all values that are known, and the row of each, ascending."""
        if self.kind == "numeric":
            numbers = self._transformed(column)
            rows = np.flatnonzero(np.isfinite(numbers))
            return rows, np.searchsorted(np.array(self.edges), numbers[rows], side="right") + _FIRST
        owners, texts = feature_values.texts(column, self.kind, self.separator)
        if self.kind == "text":
            owners, buckets = feature_values.hashed_words(owners, texts, self.num_buckets, self.ngrams)
            return owners, buckets + _FIRST
        if self.kind == "hashed":
            seeds = mix(np.arange(self.num_hashes, dtype=np.uint64))
            hashes = mix(hash_ids(texts)[:, None] ^ seeds)
            buckets = (hashes % np.uint64(self.num_buckets)).astype(np.int64)
            return np.repeat(owners, self.num_hashes), buckets.reshape(-1) + _FIRST
        distinct = texts.dictionary_encode()
        token_of = [self._token_of.get(value, UNKNOWN) for value in distinct.dictionary.to_pylist()]
        found = np.array(token_of, dtype=np.int64)[distinct.indices.to_numpy(zero_copy_only=False)]
        return owners[found != UNKNOWN], found[found != UNKNOWN]

    def numbers(self, column: Any) -> npt.NDArray[np.float32]:
        """Transformed and standardised values of shape (rows,), NaN where they are unknown."""
        return feature_values.standardised(self._transformed(column), self.mean, self.deviation)

    def _transformed(self, column: Any) -> npt.NDArray[np.float64]:
        """Values (rows,) before they are standardised; the logarithm is ``sign(x) log(1 + |x|)``."""
        found = feature_values.numbers(column)
        return np.sign(found) * np.log1p(np.abs(found)) if self.transform == "log" else found

    def vectors(self, column: Any) -> npt.NDArray[np.float32]:
        """Vectors (rows, length), a row of NaN where there is none of this length or not all of it is finite."""
        return feature_values.vectors(column, self.length)

    def encode(self, column: Any) -> Any:
        """An Arrow array: lists of int32 tokens, float32 or null, or fixed-size lists of float32 or null."""
        if self.form == "vector":
            return feature_values.vector_array(self.vectors(column))
        if self.form == "number":
            numbers = self.numbers(column)
            return pa.array(numbers, mask=np.isnan(numbers))
        offsets, tokens = self.tokens(column)
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(tokens))

    def plain(self, column: Any) -> Any:
        """The values before they are fitted: finite float64, text, or lists of either; null where unknown."""
        if self.kind == "numeric":
            numbers = feature_values.numbers(column)
            return pa.array(numbers, mask=np.isnan(numbers))
        if self.kind == "vector":
            return self.encode(column).cast(pa.large_list(pa.float32()))
        is_list = feature_values.is_list(column.type)
        return column.cast(pa.large_list(pa.large_string()) if is_list else pa.large_string())


@dataclass(frozen=True)
class Encoders:
    """The fitted features of one table, in config order."""

    features: tuple[Encoder, ...] = field(default=())

    @property
    def bags(self) -> tuple[Encoder, ...]:
        """Features that become tokens."""
        return self._of_form("tokens")

    @property
    def numerics(self) -> tuple[Encoder, ...]:
        """Features that become one number."""
        return self._of_form("number")

    @property
    def vectors(self) -> tuple[Encoder, ...]:
        """Features that become one vector."""
        return self._of_form("vector")

    def _of_form(self, form: str) -> tuple[Encoder, ...]:
        return tuple(feature for feature in self.features if feature.form == form)

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
        """Encode each feature, under its own name and as ``Encoder.encode`` does."""
        encoded = {feature.column: feature.encode(whole(table[feature.column])) for feature in self.features}
        return pa.table(encoded) if encoded else pa.table({"_": pa.nulls(table.num_rows)}).select([])

    def unusable(self, table: pa.Table, encoded: pa.Table) -> dict[str, int]:
        """Rows of ``table`` without a vector in its ``encoded`` form, and rows with an infinite number, unknown there.

        By ``<column>_<reason>``; of numbers only where there are some.
        """
        found: dict[str, int] = {}
        for feature in self.features:
            if feature.kind == "numeric" and (count := feature_values.num_infinite(whole(table[feature.column]))):
                found[f"{feature.column}_not_finite"] = count
        for feature in self.vectors:
            usable = table.num_rows - encoded[feature.column].null_count
            reasons = feature_values.missing_vectors(whole(table[feature.column]), feature.length, usable)
            found |= {f"{feature.column}_{reason}": count for reason, count in reasons.items()}
        return found

    def plain(self, table: pa.Table) -> pa.Array:
        """The table's values before encoding, a struct a row, that ``encode_rows`` encodes as ``encode`` the table.

        Numbers are float64, finite or null, vectors lists of as many float32 or null; the rest is text or lists of it.
        """
        columns = [feature.plain(whole(table[feature.column])) for feature in self.features]
        return pa.StructArray.from_arrays(columns, [feature.column for feature in self.features])

    def encode_rows(self, rows: Sequence[Mapping[str, Any]], name: str = "user") -> pa.Table:
        """Encode plain dictionaries; an absent or null feature is unknown.

        InputError for a value of a wrong type, and for a vector that is not of its length or not finite; it calls the
        rows ``name``.
        """
        columns = {}
        for feature in self.features:
            values = [row.get(feature.column) for row in rows]
            try:
                columns[feature.column] = feature_values.from_python(
                    values, feature.kind, feature.separator, feature.length
                )
            except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
                given = repr(values[0])
                raise InputError(
                    f"{name}.{feature.column}: {given if len(given) <= 80 else given[:77] + '...'} is not a"
                    f" {feature.kind} value ({error})"
                ) from error
        return self.encode(pa.table(columns)) if columns else self.encode(pa.table({"_": pa.nulls(len(rows))}))

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values that ``from_json`` reads back."""
        return [asdict(feature) for feature in self.features]

    @classmethod
    def from_json(cls, plain: Sequence[Mapping[str, Any]]) -> Self:
        """The inverse of ``to_json``."""
        return cls(
            tuple(
                Encoder(**{**entry, "values": tuple(entry["values"]), "edges": tuple(entry["edges"])})
                for entry in plain
            )
        )
