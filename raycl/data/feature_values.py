"""A column of the catalogue or of the user table as plain values: numbers, texts with their rows, vectors."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Owners = npt.NDArray[np.int64]
"""Of each value the row that it is of, ascending."""

_MOST = 1e15
"""A component beyond this is none of a real vector, and its square would not be a float32."""


_MOST_NUMBER = 1e100
"""The square of a number beyond this, summed over a column, would not be a float64."""


def numbers(column: Any) -> npt.NDArray[np.float64]:
    """Values (rows,); NaN where they are null or not finite."""
    found = _floats(column)
    return np.where(np.abs(found) <= _MOST_NUMBER, found, np.nan)


def num_infinite(column: Any) -> int:
    """How many numbers are infinite, or nearly so; NaN says that nothing is known, and is none."""
    return int((np.abs(_floats(column)) > _MOST_NUMBER).sum())


def standardised(values: npt.NDArray[np.float64], mean: float, deviation: float) -> npt.NDArray[np.float32]:
    """Values less the mean, over the deviation; NaN where that is beyond what a tower can read."""
    with np.errstate(over="ignore"):
        found = (values - mean) / deviation
    return np.where(np.abs(found) <= _MOST, found, np.nan).astype(np.float32)


def _floats(column: Any) -> npt.NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)


def texts(column: Any, kind: str, separator: str) -> tuple[Owners, Any]:
    """The text values of all rows, end to end, without nulls and blanks: of ``text`` the words in lower case."""
    if kind == "text":
        words = pc.split_pattern_regex(pc.utf8_lower(column.cast(pa.large_string())), r"[^\p{L}\p{N}]+")
        owners, found = pc.list_parent_indices(words), pc.list_flatten(words)
    elif is_list(column.type):
        owners, found = pc.list_parent_indices(column), pc.list_flatten(column)
    elif kind == "multi":
        parts = pc.split_pattern(column.cast(pa.large_string()), separator)
        owners, found = pc.list_parent_indices(parts), pc.list_flatten(parts)
    else:
        owners, found = pa.array(np.arange(len(column))), column
    found = found.cast(pa.large_string())
    kept = pc.fill_null(pc.not_equal(found, ""), False)
    return owners.filter(kept).to_numpy(zero_copy_only=False).astype(np.int64), found.filter(kept)


def hashed_words(owners: Owners, words: Any, num_buckets: int, ngrams: int) -> tuple[Owners, npt.NDArray[np.int64]]:
    """Buckets [0, num_buckets) of each row's words and then, where ``ngrams`` is not 0, of their character n-grams.

    An n-gram is a run of ``ngrams`` characters of a word between the marks ``<`` and ``>``, so that a word that is new
    shares parts with known ones (Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information", 3.2).
    """
    distinct = words.dictionary_encode()
    known = distinct.dictionary.to_pylist()
    of_word = np.array([zlib.crc32(word.encode()) for word in known], dtype=np.int64)
    places = distinct.indices.to_numpy(zero_copy_only=False)
    if not ngrams:
        return owners, of_word[places] % num_buckets
    runs = [_runs(f"<{word}>", ngrams) for word in known]
    sizes = np.array([len(one) for one in runs], dtype=np.int64)
    starts = np.append(0, np.cumsum(sizes))
    flat = np.array([run for one in runs for run in one], dtype=np.int64)
    counts = sizes[places]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    of_run = flat[np.repeat(starts[places], counts) + within]
    all_owners = np.concatenate([owners, np.repeat(owners, counts)])
    order = np.argsort(all_owners, kind="stable")  # the words of a row come before its n-grams
    return all_owners[order], (np.concatenate([of_word[places], of_run]) % num_buckets)[order]


def _runs(word: str, size: int) -> list[int]:
    """Hashes of a marked word's n-grams, with a seed that keeps them apart from whole words."""
    return [zlib.crc32(word[start : start + size].encode(), 1) for start in range(len(word) - size + 1)]


def vectors(column: Any, length: int) -> npt.NDArray[np.float32]:
    """Vectors (rows, length); a row of NaN where there is none of this length, or one that is not finite."""
    lists = _as_lists(column)
    fits = _lengths(lists) == length
    found = np.full((len(lists), length), np.nan, dtype=np.float32)
    kept = lists.filter(pa.array(fits)).flatten().cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    kept = kept.reshape(-1, length)
    with np.errstate(invalid="ignore"):
        usable = (np.abs(kept) <= _MOST).all(axis=1)
    found[np.flatnonzero(fits)[usable]] = kept[usable]
    return found


def vector_array(found: npt.NDArray[np.float32]) -> Any:
    """``vectors`` as an Arrow array of fixed-size lists, null where there is none."""
    flat = pa.array(found.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, found.shape[1], mask=pa.array(np.isnan(found).any(axis=1)))


def missing_vectors(column: Any, length: int, num_usable: int) -> dict[str, int]:
    """How many rows have no usable vector, by reason; ``num_usable`` is how many have one."""
    lengths = _lengths(_as_lists(column))
    null, fits = int((lengths < 0).sum()), int((lengths == length).sum())
    return {"null": null, "wrong_length": len(lengths) - null - fits, "not_finite": fits - num_usable}


def common_length(column: Any) -> int | None:
    """The length that most lists have, the smaller one of a tie; None where all are null."""
    lengths = _lengths(_as_lists(column))
    lengths = lengths[lengths >= 0]
    return int(np.bincount(lengths).argmax()) if len(lengths) else None


def from_python(values: list[Any], kind: str, separator: str, length: int) -> Any:
    """Plain values, None for unknown, as the column that a table would have; Arrow's and Python's errors pass."""
    if kind == "numeric":
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if kind == "vector":
        return pa.array([_given(value, length) for value in values], pa.large_list(pa.float64()))
    if kind == "multi" and any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) else (_text(value) or "").split(separator) for value in values]
        return pa.array([[_text(part) for part in value] for value in lists], pa.large_list(pa.large_string()))
    return pa.array([_text(value) for value in values], pa.large_string())


def is_list(found: pa.DataType) -> bool:
    """Lists of any number of values."""
    return bool(pa.types.is_list(found) or pa.types.is_large_list(found))


def _as_lists(column: Any) -> Any:
    kind = column.type
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.large_list(pa.float32()))
    return column if is_list(kind) else column.cast(pa.large_list(kind.value_type))


def _lengths(lists: Any) -> npt.NDArray[np.int64]:
    """Lengths (rows,), -1 for null."""
    found = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
    return np.asarray(found, dtype=np.int64)


def _given(value: Any, length: int) -> list[float] | None:
    """A vector that somebody asks with; ValueError where a table's would be missing."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != length:
        raise ValueError(f"it must be a list of {length} numbers")
    found = [float(part) for part in value]
    if not all(abs(part) <= _MOST for part in found):
        raise ValueError(f"its numbers must be finite and at most {_MOST:g}")
    return found


def _text(value: Any) -> str | None:
    """The text that Arrow makes of the same value in a table: ``true``, not ``True``."""
    text: str | None = value if isinstance(value, str) else pa.scalar(value).cast(pa.large_string()).as_py()
    return text
