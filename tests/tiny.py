"""A journey in seconds: a log of 40 users and 30 items, a config for it, and the workspace that its stages leave.

Build the workspace once a session, in a fixture that asks for ``ray_local`` first, so that no stage starts a Ray::

    @pytest.fixture(scope="session")
    def tiny(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
        return finished(tmp_path_factory.getbasetemp())

A test that changes files does so in a copy: ``copied(tiny, tmp_path)``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raycl import config_file, journey
from raycl.config import Config
from raycl.storage.store import absolute

NUM_USERS, NUM_ITEMS = 40, 30
FIRST_USER, FIRST_ITEM = 1, 101
COUNTRIES = ("pe", "lk", "ee")


def write_log(folder: Path) -> None:
    """Write ``events``, ``items`` and ``users`` as Parquet files under ``folder``: always the same rows.

    Users 1 to 40 prefer one of three categories and have 6 to 12 events each; items are 101 to 130. The users 39 and
    40 are not in the user table, item 101 has no title, and the price of item 130 is not a number.
    """
    generator = np.random.default_rng(7)
    users, items, times = [], [], []
    for user in range(NUM_USERS):
        liked = np.arange(NUM_ITEMS) % 3 == user % 3
        chance = np.where(liked, 6.0, 1.0) / (1.0 + np.arange(NUM_ITEMS) // 3)
        size = int(generator.integers(6, 13))
        users += [FIRST_USER + user] * size
        items += [FIRST_ITEM + int(row) for row in generator.choice(NUM_ITEMS, size, False, chance / chance.sum())]
        times += [1_700_000_000 + 1_000 * user + step for step in range(size)]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"user_id": users, "item_id": items, "timestamp": times}), folder / "events.parquet")
    catalogue = {
        "item_id": [FIRST_ITEM + row for row in range(NUM_ITEMS)],
        "title": [None, *(f"Item {FIRST_ITEM + row}" for row in range(1, NUM_ITEMS))],
        "category": [("tea", "rope", "lamp")[row % 3] for row in range(NUM_ITEMS)],
        "price": [*(1.5 * row for row in range(NUM_ITEMS - 1)), float("nan")],
    }
    pq.write_table(pa.table(catalogue), folder / "items.parquet")
    known = range(NUM_USERS - 2)
    described = {
        "user_id": [FIRST_USER + user for user in known],
        "country": [COUNTRIES[user % 3] for user in known],
        "age": [20.0 + user for user in known],
    }
    pq.write_table(pa.table(described), folder / "users.parquet")


def tiny_tree(folder: Path) -> dict[str, Any]:
    """The config of ``write_log(folder / "log")`` as plain values, with its workspace under ``folder``."""
    return {
        "workspace": str(folder / "workspace"),
        "logs": [{"uri": str(folder / "log" / "events.parquet")}],
        "items": {
            "uri": str(folder / "log" / "items.parquet"),
            "features": [{"column": "category"}, {"column": "price", "kind": "numeric"}],
            "display": ["category", "price"],
        },
        "users": {
            "uri": str(folder / "log" / "users.parquet"),
            "features": [{"column": "country"}, {"column": "age", "kind": "numeric"}],
        },
        "pairs": {"num_buckets": 2, "max_history": 5},
        "model": {"dim": 8, "hidden": [16]},
        "train": {"epochs": 2, "global_batch_size": 32, "learning_rate": 0.02, "threads_per_worker": 1},
        "evaluation": {
            "ks": [3, 10],
            "users_per_block": 7,
            "resamples": 100,
            "baselines": {"neighbours": 5, "als_factors": 4, "als_iterations": 2},
        },
        "index": {"num_shards": 3, "items_per_block": 11},
        "gate": {"index_recall_at": 10},
        "serving": {"port": 0, "max_replicas": 1, "poll_s": 0.1, "max_k": 20},
    }


def tiny_config(folder: Path) -> Config:
    """``tiny_tree`` as the typed config; nothing is written."""
    return config_file.check(tiny_tree(folder))


def every_kind(folder: Path, **model: Any) -> Config:
    """A log under ``folder`` whose items and users have features of every kind, some unknown, and its config."""
    write_log(folder / "log")
    generator = np.random.default_rng(8)
    for name, size in (("items", NUM_ITEMS), ("users", NUM_USERS - 2)):
        table = pq.read_table(folder / "log" / f"{name}.parquet")
        given: list[Any] = generator.normal(size=(size, 3)).tolist()
        given[2] = None
        described = {
            "tags": [f"t{row % 4}|t{row % 3}" if row % 5 else "" for row in range(size)],
            "words": [f"a story of {'tea' * (row % 3)} {row}" for row in range(size)],
            "seen": [None if row == 3 else float(10 ** (row % 6)) for row in range(size)],
            "rank": [float(row) for row in range(size)],
            "cover": given,
        }
        for column, values in described.items():
            table = table.append_column(column, pa.array(values))
        pq.write_table(table, folder / "log" / f"{name}.parquet")
    tree = tiny_tree(folder)
    for name, id_column in (("items", "item_id"), ("users", "user_id")):
        tree[name]["features"] += [
            {"column": id_column, "kind": "hashed", "num_buckets": 16},
            {"column": "tags", "kind": "multi"},
            {"column": "words", "kind": "text", "num_buckets": 64, "ngrams": 3, "max_tokens": 8},
            {"column": "seen", "kind": "numeric", "transform": "log"},
            {"column": "rank", "kind": "numeric", "transform": "buckets", "num_buckets": 4},
            {"column": "cover", "kind": "vector", "length": 3},
        ]
    tree["model"] |= {"feature_dropout": 0.1, **model}
    return config_file.check(tree)


def finished(base: Path) -> Config:
    """The config of a workspace with every stage done and the release published; made at the first call for ``base``.

    Needs a connected Ray.
    """
    folder = base / "tiny"
    config = tiny_config(folder)
    if not (folder / "log").exists():
        write_log(folder / "log")
    run_stages(config)
    return config


def run_stages(config: Config) -> None:
    """All stages in order; those that are finished are found again. Needs a connected Ray."""
    journey.pairs(config)
    journey.train(config, lambda _: None)
    journey.evaluate(config)
    journey.index(config)
    journey.publish(config)


def retrained(config: Config) -> Config:
    """The same journey with other towers and so another release, which is built and not published.

    Needs a connected Ray.
    """
    other = changed(config, "train", learning_rate=0.005)
    journey.train(other, lambda _: None)
    journey.evaluate(other)
    journey.index(other)
    return other


def changed(config: Config, section: str, **values: Any) -> Config:
    """``config`` with other values in one section, for example ``changed(tiny, "gate", min_recall=1.0)``."""
    tree = config.model_dump(mode="json")
    tree[section] |= values
    return config_file.check(tree)


def copied(config: Config, folder: Path) -> Config:
    """The same config on a copy of its workspace under ``folder``."""
    workspace = folder / "workspace"
    shutil.copytree(config.workspace, workspace)
    return config.model_copy(update={"workspace": absolute(str(workspace))})


def titles(items: Path) -> list[str]:
    """Titles in an items table: a Parquet file or a folder of such."""
    return [title for title in pq.read_table(items, columns=["title"])["title"].to_pylist() if title is not None]
