"""Hashes of ids against a scalar reference, and against values that no version may change."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.data.hashing import hash_ids, mix
from tests.data.builders import many_cases
from tests.data.reference import fnv1a, hash_id, splitmix64

INT64 = st.integers(-(2**63), 2**63 - 1)
SHORT = st.text(max_size=60)


@pytest.mark.parametrize(
    ("ids", "hashes"),
    [
        (pa.array([0, 1, -1], pa.int64()), [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, 0xE4D971771B652C20]),
        (
            pa.array(["", "a", "foobar"], pa.large_string()),
            [splitmix64(0xCBF29CE484222325), splitmix64(0xAF63DC4C8601EC8C), splitmix64(0x85944171F73967E8)],
        ),
    ],
)
def test_published_values_of_splitmix64_and_fnv1a(ids: pa.Array, hashes: list[int]) -> None:
    assert hash_ids(ids).tolist() == hashes


def test_the_hash_of_a_string_is_what_it_was() -> None:
    assert hash_ids(pa.array(["user-1", "é"], pa.large_string())).tolist() == [
        17396716259063309781,
        7936488146098753722,
    ]


@many_cases
@given(st.lists(INT64, max_size=20))
def test_integers_hash_as_the_scalar_reference(raw: list[int]) -> None:
    assert hash_ids(pa.array(raw, pa.int64())).tolist() == [hash_id(one) for one in raw]


@many_cases
@given(st.lists(SHORT, max_size=20))
def test_strings_hash_as_the_scalar_reference(raw: list[str]) -> None:
    assert hash_ids(pa.array(raw, pa.large_string())).tolist() == [hash_id(one) for one in raw]


def test_a_string_of_up_to_256_bytes_is_hashed_byte_by_byte_and_a_longer_one_at_once() -> None:
    texts = ["x" * 256, "x" * 257, "é" * 128, "é" * 129, "short"]
    expected = [
        fnv1a(text.encode())
        if len(text.encode()) <= 256
        else int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        for text in texts
    ]
    assert hash_ids(pa.array(texts, pa.large_string())).tolist() == [splitmix64(one) for one in expected]


@many_cases
@given(st.lists(SHORT, min_size=1, max_size=20), st.data())
def test_a_slice_hashes_as_the_same_part_of_the_whole(raw: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(raw)))
    stop = data.draw(st.integers(start, len(raw)))
    texts, numbers = pa.array(raw, pa.large_string()), pa.array(range(len(raw)), pa.int64())
    for whole in (texts, numbers):
        assert hash_ids(whole.slice(start, stop - start)).tolist() == hash_ids(whole)[start:stop].tolist()


def test_chunks_hash_as_one_array() -> None:
    chunks = pa.chunked_array([["a", "bb"], ["", "ccc"]], pa.large_string())
    assert hash_ids(chunks).tolist() == [hash_id(one) for one in ("a", "bb", "", "ccc")]


def test_short_offsets_hash_as_long_ones() -> None:
    assert hash_ids(pa.array(["a", "bb"], pa.string())).tolist() == [hash_id("a"), hash_id("bb")]


def test_no_ids_have_no_hashes() -> None:
    assert hash_ids(pa.array([], pa.large_string())).tolist() == hash_ids(pa.array([], pa.int64())).tolist() == []


def test_near_keys_spread_over_buckets_and_never_meet() -> None:
    mixed = mix(np.arange(100_000, dtype=np.uint64))
    assert len(np.unique(mixed)) == 100_000
    sizes = np.bincount((mixed % np.uint64(16)).astype(np.int64), minlength=16)
    assert abs(sizes - 6_250).max() < 6 * 6_250**0.5
