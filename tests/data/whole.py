"""A small log with faults on disk, and what the pairs stage should make of it, worked out in one go."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from raycl import config_file, ray_runtime
from raycl.config import ColumnSplit, Config, PairRules
from raycl.data import clean, sequences, sources, splits
from raycl.data.handoff import Pairs
from raycl.data.id_map import IdMap
from raycl.storage import tables
from raycl.storage.versions import Version
from tests.data.builders import CountedItems, in_this_process, packed, packed_parts, sorted_ids, trained, write_parquet
from tests.data.reference import PARTS, Event, Id, Packed, core, is_negative

LATEST_MS = 4_000_000_000_000


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the tasks of the pairs stage in a loop of this process, and do not wait for the disk."""
    monkeypatch.setattr(ray_runtime, "map_tasks", in_this_process)
    monkeypatch.setattr(ray_runtime, "connect", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Truth(NamedTuple):
    """What a pairs version holds."""

    rows: dict[str, list[Packed]]
    num_pairs: dict[str, int]
    dropped: dict[str, int]
    quarantined: Counter[str]
    """Bad rows with their reasons, as text."""
    vocabulary: list[dict[str, Any]]


def write_log(folder: Path, *, num_files: int = 2, rows_per_group: int = 50) -> None:
    """Write 700 events of 36 users and 30 items with faults, a catalogue of 25 items and a table of 30 users.

    The rows are the same however many files they are in.
    """
    generator = np.random.default_rng(5)
    size = 700
    users = [f"u{number}" for number in generator.integers(0, 36, size) ** 2 // 36]
    log = {
        "who": [
            None if fault == 0 else "" if fault == 1 else user for user, fault in zip(users, _faults(1), strict=True)
        ],
        "what": [99 if fault == 0 else int(item) for item, fault in zip(_items(size), _faults(2), strict=True)],
        "when": [
            0 if fault == 0 else 1_600_000_000 + int(t) for t, fault in zip(_times(size), _faults(3), strict=True)
        ],
        "how": ["hover" if fault == 0 else ("view", "buy")[fault % 2] for fault in _faults(4)],
        "much": [-1.0 if fault == 0 else 0.5 + fault % 3 for fault in _faults(5)],
        "device": [None if fault % 5 == 0 else ("phone", "desk")[fault % 2] for fault in _faults(10)],
        "place": [None if fault == 0 else fault % 7 for fault in _faults(11)],
        "part": [("train", "train", "train", "test", "dev")[fault % 5] for fault in _faults(6)],
        "part_with_val": [
            "test" if time > 300 or (time > 200 and fault < 10) else "val" if time > 200 and user > "u2" else "train"
            for user, time, fault in zip(users, _times(size), _faults(7), strict=True)
        ],
    }
    table = pa.table(log)
    table = pa.concat_tables([table, table.slice(0, 40)])  # 40 rows come twice
    write_parquet(table, folder / "log", num_files=num_files, rows_per_group=rows_per_group)
    catalogue = {"id": list(range(25)), "name": [f"item {item}" for item in range(25)], "price": [1.5] * 25}
    write_parquet(pa.table(catalogue), folder / "items")
    people = {"id": [f"u{user}" for user in range(30)], "country": ["pe", "lk", "ee"] * 10}
    write_parquet(pa.table(people), folder / "users")


def _faults(seed: int) -> list[int]:
    return [int(fault) for fault in np.random.default_rng(seed).integers(0, 60, 700)]


def _items(size: int) -> list[int]:
    return [int(item) for item in np.random.default_rng(8).integers(0, 30, size)]


def _times(size: int) -> list[int]:
    return [int(time) for time in np.random.default_rng(9).integers(0, 400, size)]


def config(folder: Path, pairs: Mapping[str, Any] | None = None, **sections: Any) -> Config:
    """The config of ``write_log(folder)``, with its workspace under ``folder``; None removes a section."""
    columns = {"user": "who", "item": "what", "time": "when", "event": "how", "weight": "much", "split": "part"}
    tree = {
        "workspace": str(folder / "workspace"),
        "logs": [{"uri": str(folder / "log"), "columns": columns}],
        "event_weights": {"view": 1.0, "buy": 2.0},
        "items": {"uri": str(folder / "items"), "id_column": "id", "title_column": "name", "display": ["price"]},
        "users": {"uri": str(folder / "users"), "id_column": "id", "features": [{"column": "country"}]},
        "pairs": {"num_buckets": 3, "rows_per_fragment": 130, **(pairs or {})},
    }
    return config_file.check({key: value for key, value in (tree | sections).items() if value is not None})


def truth(settings: Config) -> Truth:
    """Clean and build the whole log in this process, at once."""
    inputs = sources.open_inputs(settings)
    log, rules = settings.logs[0], settings.pairs
    if not isinstance(rules.split, ColumnSplit):
        log = log.model_copy(update={"columns": log.columns.model_copy(update={"split": None})})
    known = None if inputs.items is None else IdMap(sorted_ids(inputs.items.read(["id"])["id"]))
    cleaner = clean.Cleaner(
        log,
        settings.event_weights,
        LATEST_MS,
        inputs.user_type,
        inputs.item_type,
        known,
        negative_events=rules.negative_events,
        context=inputs.context,
    )
    events, bad = cleaner.clean(inputs.logs[0].read(sources.log_columns(log)))
    num_types = len(settings.event_weights) if log.columns.event else 1
    kinds = zip(events["weight"].to_pylist(), events["event"].to_pylist(), strict=True)
    is_positive = [not is_negative(Event(0, 0, 0, weight, event), rules, num_types) for weight, event in kinds]
    positive = events.filter(pa.array(is_positive))
    counted = Counter(positive["item"].to_pylist())
    ids = sorted(known.ids.to_pylist() if known else (i for i, n in counted.items() if n >= rules.min_item_events))
    counts = np.array([counted[one] for one in ids], dtype=np.int64)
    people = None if inputs.users is None else sorted_ids(inputs.users.read(["id"])["id"].cast("large_string"))
    times = np.sort(positive["time_ms"].to_numpy())
    shares = (rules.split.val_share, rules.split.test_share) if rules.split.kind == "time" else (0.1, 0.1)
    items = CountedItems(pa.array(ids, inputs.item_type), counts.tolist(), rules.min_item_events)
    built = sequences.build(
        events,
        items,
        None if people is None else IdMap(people),
        rules,
        splits.cut_times([(len(times), times.tolist())], *shares),
        seed=settings.seed,
        in_core=_in_core(sequences.clean(events, items, rules, settings.seed, num_types), rules, len(ids)),
        num_types=num_types,
    )
    train_counts, train_targets = trained(built, len(ids))
    return Truth(
        packed_parts(built, rules),
        built.num_pairs,
        clean.count_reasons(bad) | built.dropped_rows,
        Counter(repr(row) for row in bad.drop_columns("row").to_pylist()),
        [
            {
                "row": row,
                "item": one,
                "retired": False,
                "log_count": counted[one],
                "train_count": train_counts[row],
                "train_targets": train_targets[row],
            }
            for row, one in enumerate(ids)
        ],
    )


def _in_core(cleaned: sequences.Cleaned, rules: PairRules, num_items: int) -> npt.NDArray[np.bool_]:
    """Which items are left by the rounds of one process."""
    by_user: dict[Id, list[Event]] = defaultdict(list)
    for user, item in zip(cleaned.events.user.tolist(), cleaned.events.item.tolist(), strict=True):
        by_user[user].append(Event(user, item, 0))
    rare = core(by_user, rules).rare
    return np.array([item not in rare for item in range(num_items)], dtype=np.bool_)


def found(version: Version) -> Truth:
    """What a finished version holds, its files put together."""
    pairs, manifest = Pairs.of(version), version.manifest
    rows: dict[str, list[Packed]] = {}
    for part in PARTS:
        files = [tables.read(version.store, path) for path, _ in pairs.files(part)]
        rows[part] = sorted(packed(pa.concat_tables(files), part, pairs.rules))
    bad: Counter[str] = Counter()
    for name in version.store.names("quarantine"):
        bad.update(
            repr(row)
            for row in tables.read(version.store, f"quarantine/{name}").drop_columns(["file", "row"]).to_pylist()
        )
    return Truth(
        rows,
        {part: sum(count for _, count in pairs.files(part)) for part in PARTS},
        manifest.dropped,
        bad,
        pairs.vocabulary().to_pylist(),
    )
