"""Data reports of small logs, made by hand for the tests of what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from raycl import config_file
from raycl.config import Config
from raycl.data import report
from raycl.data.histogram import Histogram
from raycl.data.report import Report
from raycl.data.report_items import ItemCounts, ItemDrift
from raycl.data.report_sketch import Kept, Rows, Span
from raycl.data.times import DAY_MS

HOSTILE = "<script>alert('1')</script> & \"$x^2$\" 日本 \u202e \x00\n</svg>"


def config(**sections: Any) -> Config:
    """A config with three event types, one of them hostile; nothing is opened."""
    tree = {
        "workspace": "unused",
        "logs": [{"uri": "unused", "columns": {"event": "kind"}}],
        "event_weights": {"view": 1.0, HOSTILE: 2.0, "buy": 3.0},
    }
    return config_file.check(tree | sections)


def histogram(sizes: Sequence[int]) -> Histogram:
    """The histogram of these sizes."""
    return Histogram.of(np.array(sizes, dtype=np.int64))


def rows(days: Mapping[int, int] | None = None, **changes: Any) -> Rows:
    """1,234 rows over some days."""
    whole = Rows(
        {19_700: 1_000, 19_701: 230} if days is None else dict(days),
        undated=4,
        types=(1_001, 111, 33),
        unnamed=17,
        unknown={f"{HOSTILE} 2": 41, "hover": 29},
        unknown_rest=2,
        nulls={"user": [5, 1_234], "time": [3, 1_234], "event": [17, 1_234]},
    )
    return replace(whole, **changes)


def kept(**changes: Any) -> Kept:
    """871 events of four users."""
    whole = Kept(
        {19_700: 800, 19_701: 71},
        types=(700, 101, 70),
        users=histogram([1, 70, 300, 500]),
        history={
            "train": histogram([1] * 300 + [9] * 200 + [40] * 100 + [0] * 11),
            "val": histogram([60] * 3),
            "test": histogram([61] * 2),
        },
        spans={
            "train": Span(19_700 * DAY_MS, 19_701 * DAY_MS + 3_600_000),
            "val": Span(19_701 * DAY_MS + 3_600_000, 19_701 * DAY_MS + 7_200_000),
        },
    )
    return replace(whole, **changes)


def vocabulary(log_counts: Mapping[Any, int], train_counts: Sequence[int] | None = None) -> pa.Table:
    """Items with their good rows in the log, and their events in training."""
    counts = list(log_counts.values())
    numbers = [pa.array(column, pa.int64()) for column in (counts, train_counts or counts)]
    retired = pa.array([False] * len(counts), pa.bool_())
    return pa.table([list(log_counts), *numbers, retired], ["item", "log_count", "train_count", "retired"])


ITEMS = vocabulary({11: 700, 12: 150, 13: 21, 14: 0}, [690, 140, 0, 0])


def made(
    read: Rows | None = None,
    events: Kept | None = None,
    items: pa.Table = ITEMS,
    *,
    settings: Config | None = None,
    dropped: Mapping[str, int] | None = None,
    held_out: Mapping[str, Sequence[int]] | None = None,
) -> Report:
    """The report of ``rows()`` and ``kept()``, or of others."""
    counts = {"rows_in": 1_234, "events": 871, "train_users": 4, "train_pairs": 611, "val_users": 3, "val_pairs": 3}
    targets = held_out or {"val": [1, 1, 1, 0], "test": [0, 0, 2, 0]}
    return report.build(
        "f" * 64,
        settings or config(),
        counts | {"test_users": 2, "test_pairs": 2},
        {"null_user": 5, "unknown_event": 89, "duplicate": 269} if dropped is None else dropped,
        read or rows(),
        events or kept(),
        ItemCounts.of(
            items, {part: np.array(counted[: items.num_rows], dtype=np.int64) for part, counted in targets.items()}
        ),
    )


def drifted(before: pa.Table, now: pa.Table) -> ItemDrift:
    """How the items of one vocabulary differ from those of another."""
    return ItemDrift.of(before, now, *(sum(table["log_count"].to_pylist()) for table in (before, now)))
