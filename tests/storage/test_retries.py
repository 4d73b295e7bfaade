"""A store that refuses, cuts answers short or loses them is asked again, and what is done twice is done once."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import s3fs

from raycl.errors import StoreUnavailable
from raycl.storage import retries, tables
from raycl.storage.store import Store
from tests.faulty_s3 import Faults, FaultyS3

REFUSED = "AWS Error SLOW_DOWN during ListObjectsV2 operation: Please reduce your request rate."


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The bounds of the pauses, which take no time here."""
    bounds: list[float] = []
    clock = [0.0]

    def pause(_: float, bound: float) -> float:
        bounds.append(bound)
        clock[0] += bound
        return 0.0

    monkeypatch.setattr(random, "uniform", pause)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return bounds


def failing(times: int, error: Callable[[], OSError]) -> Callable[[], int]:
    """An operation that fails so many times and then returns how often it was tried."""
    tries = 0

    def operation() -> int:
        nonlocal tries
        tries += 1
        if tries <= times:
            raise error()
        return tries

    return operation


def test_what_fails_for_a_reason_that_passes_is_tried_again_after_pauses_that_grow(pauses: list[float]) -> None:
    assert retries.patiently("s3://bucket/key", failing(9, lambda: OSError(REFUSED))) == 10
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_patience_ends_with_an_error_that_names_place_tries_and_cause(pauses: list[float]) -> None:
    with pytest.raises(
        StoreUnavailable, match=r"^s3://bucket/key is unavailable: failed in 19 tries over 61 s"
    ) as told:
        retries.patiently("s3://bucket/key", failing(100, lambda: OSError(f"{REFUSED}\nmore")))
    assert f"(last: {REFUSED}); see" in str(told.value)
    assert len(pauses) == 18
    assert sum(pauses) >= retries.PATIENCE_S


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("AWS Error NO_SUCH_KEY"),
        OSError("AWS Error ACCESS_DENIED during GetObject operation: no"),
        OSError("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: no"),
        OSError(errno.EINVAL, "Invalid argument"),
        StoreUnavailable("given up already"),
    ],
)
def test_an_error_that_stays_is_raised_at_once(error: OSError, pauses: list[float]) -> None:
    with pytest.raises(type(error)) as raised:
        retries.patiently("s3://bucket/key", failing(1, lambda: error))
    assert raised.value is error
    assert pauses == []


@pytest.mark.parametrize("message", [REFUSED, "AWS Error UNKNOWN (HTTP status 503) during HeadObject", "", "x"])
def test_what_arrow_says_tells_whether_it_passes(message: str) -> None:
    assert retries.passes(OSError(message)) is message.startswith("AWS")
    assert retries.passes(ConnectionResetError(message))


def test_everything_that_a_store_does_outlasts_refusals_cut_answers_and_lost_ones(
    faulty_store: tuple[Store, FaultyS3],
) -> None:
    store, proxy = faulty_store
    table = pa.table({"id": np.arange(1_000), "text": [f"text {number}" for number in range(1_000)]})
    buckets = np.arange(1_000) % 3
    proxy.faults = Faults(refused=0.25, cut=0.25, lost=0.25)
    for number in range(2):
        folder = f"folder-{number}"
        store.write(f"{folder}/small", b"1")
        assert store.create(f"{folder}/once", b"mine")
        assert not store.create(f"{folder}/once", b"another's")
        tables.write(store, f"{folder}/table.parquet", table)
        tables.write_buckets(store, f"{folder}/buckets.arrow", table, buckets, 3)
        assert store.names(folder) == ["buckets.arrow", "once", "small", "table.parquet"]
        assert store.sizes(folder)[f"{folder}/small"] == 1
        assert store.exists(f"{folder}/small")
        assert store.read(f"{folder}/once") == b"mine"
        assert store.read_with(f"{folder}/once", lambda file: file.read(2) + file.read(2)) == b"mine"
        assert len(store.sha256(f"{folder}/table.parquet")) == 64
        assert tables.read(store, f"{folder}/table.parquet") == table
        for bucket in range(3):
            assert tables.read_bucket(store, f"{folder}/buckets.arrow", bucket) == table.filter(buckets == bucket)
        store.delete(f"{folder}/small")
        store.delete_folder(folder)
        assert store.files() == []
    assert min(proxy.done[kind] for kind in ("refused", "cut", "lost")) > 0


def test_a_refusal_longer_than_the_bytes_asked_for_is_outlasted(faulty_store: tuple[Store, FaultyS3]) -> None:
    """Arrow's own tries end at once here: it cannot fit the server's text into the place for one byte."""
    store, proxy = faulty_store
    store.write("file", b"1")
    proxy.faults.refused = 0.5
    assert [store.read("file") for _ in range(10)] == [b"1"] * 10
    assert proxy.done["refused"]


def test_a_creation_whose_answers_were_lost_is_known_as_ones_own(faulty_store: tuple[Store, FaultyS3]) -> None:
    store, proxy = faulty_store
    proxy.faults.lost = 0.5
    assert all(store.create(f"file-{number}", b"same") for number in range(12))
    assert proxy.done["lost"]
    assert not any(store.create(f"file-{number}", b"same") for number in range(12))


def test_a_completion_whose_answer_was_lost_is_known_as_ones_own(
    s3_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers answer a second completion of one upload with 404."""
    close = s3fs.core.S3File.close

    def done_twice(stream: Any) -> None:
        close(stream)
        raise FileNotFoundError("NoSuchUpload")

    monkeypatch.setattr(s3fs.core.S3File, "close", done_twice)
    with s3_store.open_output("file") as stream:
        stream.write(b"whole")
    assert s3_store.read("file") == b"whole"

    def not_done(_: Any) -> None:
        raise FileNotFoundError("NoSuchUpload")

    monkeypatch.setattr(s3fs.core.S3File, "close", not_done)
    with pytest.raises(FileNotFoundError), s3_store.open_output("file") as stream:
        stream.write(b"other")
    assert s3_store.read("file") == b"whole"


def test_a_store_that_stays_down_is_named_with_its_last_answer(
    faulty_store: tuple[Store, FaultyS3], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, proxy = faulty_store
    store.write("file", b"1")
    proxy.faults.refused = 1.0
    monkeypatch.setattr(retries, "PATIENCE_S", 0.0)
    with pytest.raises(StoreUnavailable, match=rf"^{store.uri}/file is unavailable: failed in 1 tries .*SLOW_DOWN|503"):
        store.exists("file")


def test_a_missing_file_is_not_asked_for_again(faulty_store: tuple[Store, FaultyS3]) -> None:
    store, proxy = faulty_store
    before = proxy.done["requests"]
    with pytest.raises(FileNotFoundError):
        store.read("absent")
    with pytest.raises(FileNotFoundError):
        store.delete("absent")
    assert proxy.done["requests"] - before <= 4
