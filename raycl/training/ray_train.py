"""The towers stage on Ray Train: how many processes, on which devices, and what they report."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

import ray.train.torch
import torch

from raycl import lineage, ray_runtime, schema
from raycl.config import Config, TrainConfig
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError, RayclError
from raycl.model import weights
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft, Version, Workspace
from raycl.tracking import sinks
from raycl.tracking.events import Sink
from raycl.training import checkpoint, exchange, loop, ray_mining, ray_workers, records, start, stop, watch
from raycl.training.prepare import prepare

log = logging.getLogger(__name__)

STAGE = "towers"


def run(
    config: Config,
    workspace: Workspace,
    pairs: Version,
    report: loop.Report,
    *,
    force: bool = False,
    here: bool = False,
) -> tuple[Version, bool]:
    """Train towers on ``pairs``; the second value is False when the finished towers of the same work were found.

    A run that was killed goes on from its newest checkpoint; one that is told to end by SIGTERM or Ctrl-C makes one
    first, and raises Stopped. ``report`` hears of the epochs, wherever they run. ``here``: one worker is this process,
    on a cluster too.
    """
    digest = lineage.digest(config, STAGE, pairs.name)
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    workspace.store.require_writable()
    pairs.verified("vocab").complete(schema.SEQUENCES)
    draft = workspace.draft(STAGE, digest, fresh=force)
    begun = start.leave(workspace, config, pairs, draft)
    job = prepare(config, Pairs.of(pairs), draft.store)
    ray_runtime.connect(config.ray)
    use_gpu = _use_gpu(config.train)
    how = config.loss.negatives.mined
    mined = ray_mining.run(how, workspace, Pairs.of(pairs), draft, config.seed) if how is not None else None
    if draft.task_done("train") is None:
        if made := checkpoint.newest_step(draft.store):
            log.info("training goes on after step %d of %d", made, job.stream.steps * config.train.epochs)
        if config.train.num_workers.max == 1 and (here or not ray_runtime.joined_cluster()):
            asked = threading.Event()
            with stop.on_signals(asked):
                _train(config, pairs, draft, torch.device("cuda" if use_gpu else "cpu"), report, asked)
        else:

            def work(listen: loop.Report, asked: threading.Event) -> None:
                _train(config, pairs, draft, ray.train.torch.get_device(), listen, asked)

            ray_workers.run(work, config.train, draft.store.under(f"{WORK}/ray"), report, use_gpu=use_gpu)
    record = draft.task_done("train")
    if record is None:
        raise RayclError("training ended without its record: look at the workers' logs")
    draft.store.write("metrics.json", json.dumps(record).encode())
    inputs = {
        "pairs": pairs.name,
        **({"mined_from": mined["from"]} if mined and mined["from"] else {}),
        **({"started_from": begun} if begun else {}),
    }
    records.leave(config, pairs, draft, job, record, inputs)
    version = draft.commit(
        inputs=inputs,
        config=lineage.part(config, STAGE),
        counts={
            "pairs": job.stream.steps * config.train.global_batch_size,
            "steps": record["steps"],
            "parameters": record["parameters"],
        },
        facts={
            **{name: record[name] for name in ("losses", "pairs_per_s", "validation", "kept_step", "kept")},
            "pairs_fingerprint": pairs.manifest.fingerprint,
            "mined": mined,
        },
    )
    return version, True


def _use_gpu(train: TrainConfig) -> bool:
    available = ray_runtime.num_gpus()
    fewest = train.num_workers.min
    if train.use_gpu == "always" and available < fewest:
        raise ConfigError(
            f"train.use_gpu=always needs train.num_workers={fewest} GPUs and the cluster has {available}:"
            f" use auto or fewer workers"
        )
    return train.use_gpu != "never" and available >= fewest


def _train(
    config: Config,
    pairs: Version,
    draft: Draft,
    device: torch.device,
    report: loop.Report,
    asked: threading.Event,
) -> None:
    """The whole run of one process, which verifies its share of the files; rank 0 leaves the towers and the record."""
    torch.set_num_threads(max(1, min(config.train.threads_per_worker, os.cpu_count() or 1)))
    rates: list[float] = []

    def listen(event: Mapping[str, Any]) -> None:
        if event["done"]:
            rates.append(float(event["pairs_per_s"]))
        report(event)

    mine = Pairs.of(pairs).files("train")[exchange.rank() :: exchange.world_size()]
    pairs.verified(*(path for path, _ in mine))
    job = prepare(config, Pairs.of(pairs), Store(draft.store.uri))
    heard = _sinks(config, pairs, Store(draft.store.uri)) if exchange.rank() == 0 else ()
    towers, progress = loop.fit(job, device, listen, asked, heard)
    if exchange.rank() == 0:
        weights.save(draft.store, job.spec, towers, job.inputs.items.to(towers.user.empty.device))
        record = {
            "losses": progress.losses,
            "pairs_per_s": rates,
            "steps": progress.step,
            **watch.told(config.train, progress),
            "parameters": sum(parameter.numel() for parameter in towers.parameters()),
        }
        draft.finish_task("train", record)


def _sinks(config: Config, pairs: Version, store: Store) -> list[Sink]:
    tags = {"raycl.towers": store.uri, "raycl.pairs": pairs.name, "raycl.pairs_fingerprint": pairs.manifest.fingerprint}
    return sinks.of(config.tracking, store, lineage.part(config, STAGE), tags)
