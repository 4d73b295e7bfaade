"""The job that every engine does, and what its output must be.

Rows without user, item or time, with a time that is not between 1 and ``LATEST_S`` or an event type that is not in
``WEIGHTS`` are dropped, and so are items that the catalogue does not know and repeats of the same user, item, time
and event type. An item's row is its place among the catalogue's ids in ascending order. A user's events are ordered
by time, then item row, then event type; users of fewer than 2 events are dropped; of a user with 3 or more events the
last is test and the one before it validation.

Output, as Parquet compressed with zstd: ``sequences/``, one row a user, columns ``user``, ``val_from``, ``test_from``
(where validation and test begin in the lists), ``items``, ``weights``, ``times_ms`` and ``events`` (the place of each
event's type in ``WEIGHTS``); and ``counts.parquet``: of each item row with training events, their number.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import measure

WEIGHTS = {"view": 1.0, "cart": 2.0, "purchase": 3.0}
LATEST_S = 1_900_000_000
_SETTLES_WITHIN_S, _LOOK_S, _IDLE = 20.0, 0.5, 0.2
"""An engine has started once all its processes together use less than ``_IDLE`` of a core for ``_LOOK_S``."""

Engine = Callable[[Path, Path, int], None]
"""Reads ``events/*.parquet`` and ``items/*.parquet`` of a folder, writes into another, on so many cores."""


def main(start: Callable[[int], Engine]) -> None:
    """Run an engine as a program: LOG OUTPUT CORES. Prints one line of JSON; ``seconds`` leaves out its start.

    The start ends when the engine's processes are idle.
    """
    log, output, cores = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    output.mkdir(parents=True, exist_ok=True)
    engine = start(cores)
    _settle()
    began = time.perf_counter()
    engine(log, output, cores)
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - began}) + "\n")


def _settle() -> None:
    """Wait until the engine has started: what it says is ready may be starting other processes still."""
    deadline = time.monotonic() + _SETTLES_WITHIN_S
    here = psutil.Process()
    before = measure.cpu_s(here)
    while time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        now = measure.cpu_s(here)
        if now - before < _IDLE * _LOOK_S:
            return
        before = now


def checksum(output: Path) -> dict[str, Any]:
    """What two outputs must have in common: a sum over all events, whatever the order of users and files."""
    total, events, users = 0, 0, 0
    for path in sorted((output / "sequences").rglob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(100_000, columns=_COLUMNS):
            if batch.num_rows:
                total = (total + _sum(batch)) % 2**64
                events += len(batch.column("items").flatten())
                users += batch.num_rows
    found: dict[str, Any] = {"sum": f"{total:016x}", "events": events, "users": users}
    counts = pq.read_table(output / "counts.parquet").sort_by("item")
    found["counts"] = f"{_mix(counts['item'].to_numpy(), counts['count'].to_numpy()):016x}"
    return found


_COLUMNS = ["user", "val_from", "test_from", "items", "weights", "times_ms", "events"]


def _sum(batch: pa.RecordBatch) -> int:
    lists = batch.column("items")
    sizes = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)
    place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return _mix(
        np.repeat(batch.column("user").to_numpy(zero_copy_only=False), sizes),
        np.repeat(batch.column("val_from").to_numpy(zero_copy_only=False), sizes),
        np.repeat(batch.column("test_from").to_numpy(zero_copy_only=False), sizes),
        place,
        lists.flatten().to_numpy(zero_copy_only=False),
        batch.column("weights").flatten().to_numpy(zero_copy_only=False).astype(np.float32).view(np.int32),
        batch.column("times_ms").flatten().to_numpy(zero_copy_only=False),
        batch.column("events").flatten().to_numpy(zero_copy_only=False),
    )


def _mix(*columns: Any) -> int:
    hashed = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        hashed = (hashed ^ column.astype(np.int64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(29)
    return int(hashed.sum(dtype=np.uint64))
