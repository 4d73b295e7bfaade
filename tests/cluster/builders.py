"""A small log on disk with tastes to learn, and configs that read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

NUM_GROUPS = 6
_FIRST_TIME = 1_700_000_000


def write_log(folder: Path, *, users: int, items: int, num_files: int = 2, seed: int = 0) -> None:
    """Write ``events/``, 12 to 20 events a user, and ``items.parquet``; users of one group like the same items."""
    (folder / "events").mkdir(parents=True)
    of_group = np.arange(items) % NUM_GROUPS
    pq.write_table(
        pa.table(
            {
                "item_id": [f"item-{number}" for number in range(items)],
                "title": [f"Item {number}" for number in range(items)],
                "category": [f"group-{group}" for group in of_group],
            }
        ),
        folder / "items.parquet",
    )
    for number, part in enumerate(np.array_split(np.arange(users), num_files)):
        write_events(folder / "events" / f"part-{number:04d}.parquet", part, items, seed + number)


def write_events(path: Path, users: np.ndarray[Any, Any], items: int, seed: int) -> None:
    """Write one file of the log: the events of these users, four in five of them within the user's group."""
    generator = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {"user_id": [], "item_id": [], "timestamp": []}
    for user in users:
        count = int(generator.integers(12, 21))
        drawn = generator.integers(0, items, count)
        liked = drawn // NUM_GROUPS * NUM_GROUPS + user % NUM_GROUPS
        chosen = np.where((generator.random(count) < 0.8) & (liked < items), liked, drawn)
        rows["user_id"] += [int(user)] * count
        rows["item_id"] += [f"item-{item}" for item in chosen]
        rows["timestamp"] += (_FIRST_TIME + np.arange(count) * 3600 + int(user)).tolist()
    pq.write_table(pa.table(rows), path)


def write_movies(folder: Path, *, users: int, items: int, seed: int = 0) -> None:
    """Write ``ml-1m/`` with the columns of MovieLens-1M: one genre an item, and users who mostly watch one genre."""
    generator = np.random.default_rng(seed)
    (folder / "ml-1m").mkdir(parents=True, exist_ok=True)
    sizes = generator.integers(12, 21, users)
    owner = np.repeat(np.arange(users), sizes)
    drawn = generator.integers(0, items // NUM_GROUPS, len(owner)) * NUM_GROUPS
    taste = np.where(generator.random(len(owner)) < 0.9, owner, generator.integers(0, NUM_GROUPS, len(owner)))
    left = np.cumsum(sizes)[owner] - 1 - np.arange(len(owner))
    tables = {
        "interactions": {
            "user_id": (owner + 1).astype(np.int32),
            "item_id": (drawn + taste % NUM_GROUPS + 1).astype(np.int32),
            "event_type": ["rating"] * len(owner),
            "split": np.array(["test", "valid", "train"])[np.minimum(left, 2)],
        },
        "items": {
            "item_id": np.arange(1, items + 1, dtype=np.int32),
            "title": [f"Movie {number}" for number in range(items)],
            "year": (1950 + np.arange(items) % 50).astype(np.int16),
            "genres": [[f"genre-{number % NUM_GROUPS}"] for number in range(items)],
        },
        "users": {
            "user_id": np.arange(1, users + 1, dtype=np.int32),
            "gender": ["F", "M"] * (users // 2),
            "age_group": (np.arange(users) % 7).astype(np.int16),
            "occupation": (np.arange(users) % 21).astype(np.int16),
        },
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / "ml-1m" / f"{name}.parquet")


def config_tree(log: Path, workspace: str) -> dict[str, Any]:
    """The config of a log that ``write_log`` made, as plain values: one short epoch on two CPUs."""
    return {
        "workspace": workspace,
        "seed": 3,
        "logs": [{"uri": str(log / "events")}],
        "items": {"uri": str(log / "items.parquet"), "features": [{"column": "category"}]},
        "pairs": {"num_buckets": 4, "max_history": 10},
        "model": {"dim": 16, "hidden": []},
        "train": {"epochs": 1, "global_batch_size": 256, "threads_per_worker": 1},
        "index": {"num_shards": 2},
        "ray": {"num_cpus": 2, "object_store_bytes": 100_000_000},
    }


def write_config(path: Path, tree: dict[str, Any]) -> Path:
    """Write a config file."""
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path
