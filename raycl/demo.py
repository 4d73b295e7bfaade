"""The whole journey on a synthetic log of this machine's own making, printed as it goes."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

from raycl import config_file, journey, lineage
from raycl.config import Config
from raycl.console import Screen
from raycl.data.synthetic import TRUTH_FILE, SyntheticSpec
from raycl.errors import ConfigError
from raycl.journey import Outcome
from raycl.storage.store import Store, absolute

CONFIG_FILE = "raycl.yaml"
_NUM_ANSWERS = 3


def config_tree(log: str, workspace: str) -> dict[str, Any]:
    """The config of a synthetic log under the URI ``log``, as plain values."""
    return {
        "workspace": workspace,
        "logs": [{"uri": f"{log}/events", "columns": {"event": "event_type"}}],
        "event_weights": {"view": 1.0, "cart": 2.0, "purchase": 3.0},
        "items": {
            "uri": f"{log}/items",
            "features": [{"column": "category"}, {"column": "price", "kind": "numeric"}],
            "display": ["category", "price"],
        },
        "users": {"uri": f"{log}/users", "id_column": "user_id", "features": [{"column": "country"}]},
        "pairs": {"num_buckets": 4, "max_history": 30},
        "model": {"hidden": [], "dim": 64},
        "loss": {"temperature": 0.2},
        "train": {"epochs": 5, "global_batch_size": 1024, "learning_rate": 0.002, "weight_decay": 1.0},
        "gate": {"min_over_popularity": 3.0},
        "serving": {"max_replicas": 1},
    }


def synthesise(output: str, rows: int, items: int, seed: int) -> dict[str, Any]:
    """Write a synthetic log under ``output`` with a config that reads it, and return what is known of it.

    A log that is there already, of the same rows, items and seed, is kept.
    """
    store = Store(absolute(output))
    spec = SyntheticSpec(num_rows=rows, num_items=items, seed=seed)
    if store.exists(TRUTH_FILE):
        truth = dict(json.loads(store.read(TRUTH_FILE)))
        if truth["spec"] == asdict(spec):
            return truth
    foreign = [path for path in store.files("events") if path.endswith(".parquet") and "/part-" not in path]
    if foreign or (store.exists(CONFIG_FILE) and not store.exists(TRUTH_FILE)):
        raise ConfigError(
            f"OUTPUT={output} holds {(foreign or [CONFIG_FILE])[0]}, which is no synthetic log's: choose another folder"
        )
    store.require_writable("OUTPUT")
    from raycl import ray_runtime
    from raycl.config import RayConfig
    from raycl.data import ray_synthetic

    ray_runtime.connect(RayConfig())
    truth = ray_synthetic.write(spec, store)
    tree = config_tree(store.uri, f"{store.uri}/workspace")
    store.write(CONFIG_FILE, config_file.dump(config_file.check(tree)).encode())
    return truth


def run(workspace: str, rows: int, seed: int, screen: Screen) -> None:
    """Synthesise, run every stage, serve, ask three questions over HTTP, and end with one line of JSON."""
    started = time.monotonic()
    root = absolute(workspace)
    log = f"{root}/log"
    screen.say(f"synthetic log: {rows:,} rows in {log}")
    truth = synthesise(log, rows, 2_000, seed)
    tree = config_tree(log, root)
    tree["serving"] |= {"port": 0}
    config = config_file.check(tree)
    Store(root).write(CONFIG_FILE, config_file.dump(config).encode())
    pairs, _, evaluation, index, _ = journey.run(config, screen.epoch, screen.outcome)
    answers = _ask(config, screen)
    metrics = evaluation.version.manifest.facts
    best = truth["oracle_recall_at_20"]
    recall = metrics["towers"]["recall_at_20"]
    popular = metrics["popularity"]["recall_at_20"]
    screen.say(
        f"recall@20 {recall:.4f}, most popular {popular:.4f} ({recall / popular:.1f} times), best attainable {best:.4f}"
        f" ({recall / best:.0%} of it); index recall {index.version.manifest.facts['index_recall']:.4f}"
    )
    screen.say(f"to ask on: raycl serve {root}/{CONFIG_FILE} --set serving.port=8000")
    screen.json(_closing(pairs, recall, popular, index, answers, started))


def _closing(
    pairs: Outcome, recall: float, popular: float, index: Outcome, answers: int, started: float
) -> dict[str, Any]:
    manifest = pairs.version.manifest
    return {
        "rows_in": manifest.counts["rows_in"],
        "rows_dropped": sum(manifest.dropped.values()),
        "pairs": manifest.counts["train_pairs"],
        "recall_at_20": round(recall, 4),
        "popularity_recall_at_20": round(popular, 4),
        "index_recall": round(index.version.manifest.facts["index_recall"], 4),
        "answers": answers,
        "seconds": round(time.monotonic() - started, 1),
    }


def _ask(config: Config, screen: Screen) -> int:
    """Serve the release and fetch answers for the first test users over HTTP; returns how many came."""
    from raycl.data.handoff import Pairs
    from raycl.serving import client, ray_serve, shown

    pairs = Pairs.of(lineage.pairs(config, journey.workspace(config)))
    url = ray_serve.start(config)
    answers = 0
    try:
        for user in pairs.some_users("test", _NUM_ANSWERS):
            answer = client.ask(url, client.query_of(pairs, str(user), 5))
            screen.rows(f"POST {url}/v1/retrieve for user {user}, release {answer.release}", shown.rows(answer))
            answers += bool(answer.items)
    finally:
        ray_serve.stop()
    return answers
