"""A hash of raw ids that is the same on every machine, in every process and version."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl.data.columns import whole

_PRIME = np.uint64(0x100000001B3)
_LONG_BYTES = 256


def hash_ids(ids: Any) -> npt.NDArray[np.uint64]:
    """64-bit hashes of an Arrow array of int64 or large_string ids, without nulls.

    Integers go through SplitMix64 (Steele et al., OOPSLA 2014), strings through FNV-1a over their UTF-8 bytes and then
    the same mix.
    """
    ids = whole(ids)
    if pa.types.is_integer(ids.type):
        return mix(ids.to_numpy(zero_copy_only=False).view(np.uint64))
    return mix(_fnv1a(ids.cast(pa.large_string())))


def bucket_of(ids: Any, num_buckets: int) -> npt.NDArray[np.int64]:
    """The bucket, below ``num_buckets``, that holds all events of each id."""
    return (hash_ids(ids) % np.uint64(num_buckets)).astype(np.int64)


def mix(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The SplitMix64 step: a bijection that spreads near keys over all 64 bits."""
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def _fnv1a(strings: pa.LargeStringArray) -> npt.NDArray[np.uint64]:
    """One pass over byte positions, all strings at once; the few long ones one by one."""
    lengths = pc.binary_length(strings).to_numpy(zero_copy_only=False).astype(np.int64)
    hashes = np.full(len(strings), 0xCBF29CE484222325, dtype=np.uint64)
    if not len(strings):
        return hashes
    _, offsets_buffer, data_buffer = strings.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[strings.offset : strings.offset + len(strings)]
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)
    short = np.flatnonzero(lengths <= _LONG_BYTES)
    for position in range(int(lengths[short].max(initial=0))):
        short = short[lengths[short] > position]
        hashes[short] = (hashes[short] ^ data[offsets[short] + position]) * _PRIME
    for row in np.flatnonzero(lengths > _LONG_BYTES):
        text = data[offsets[row] : offsets[row] + lengths[row]].tobytes()
        hashes[row] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    return hashes
