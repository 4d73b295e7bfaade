"""The towers stage on Ray Train: how many processes, on which devices, and what they report."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.util.queue import Empty, Queue

from raycl import lineage, ray_runtime, schema
from raycl.config import Config, TrainConfig
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError, RayclError
from raycl.model import weights
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft, Version, Workspace
from raycl.training import exchange, loop, ray_mining
from raycl.training.prepare import prepare

STAGE = "towers"


def run(
    config: Config, workspace: Workspace, pairs: Version, report: loop.Report, *, force: bool = False
) -> tuple[Version, bool]:
    """Train towers on ``pairs``; the second value is False when the finished towers of the same work were found.

    A run that was killed goes on from its newest checkpoint. ``report`` hears of the epochs, wherever they run.
    """
    digest = lineage.digest(config, STAGE, pairs.name)
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    workspace.store.require_writable()
    pairs.verified("vocab").complete(schema.SEQUENCES)
    draft = workspace.draft(STAGE, digest, fresh=force)
    job = prepare(config, Pairs.of(pairs), draft.store)
    ray_runtime.connect(config.ray)
    use_gpu = _use_gpu(config.train)
    how = config.loss.negatives.mined
    mined = ray_mining.run(how, workspace, Pairs.of(pairs), draft, config.seed) if how is not None else None
    if draft.task_done("train") is None:
        if config.train.num_workers == 1 and not ray_runtime.joined_cluster():
            _train(config, pairs, draft, report, torch.device("cuda") if use_gpu else torch.device("cpu"))
        else:
            _train_on_workers(config, pairs, draft, report, use_gpu)
    record = draft.task_done("train")
    if record is None:
        raise RayclError("training ended without its record: look at the workers' logs")
    draft.store.write("metrics.json", json.dumps(record).encode())
    version = draft.commit(
        inputs={"pairs": pairs.name} | ({"mined_from": mined["from"]} if mined and mined["from"] else {}),
        config=lineage.part(config, STAGE),
        counts={
            "pairs": job.stream.steps * config.train.global_batch_size,
            "steps": job.stream.steps * config.train.epochs,
            "parameters": record["parameters"],
        },
        facts={
            "losses": record["losses"],
            "pairs_per_s": record["pairs_per_s"],
            "pairs_fingerprint": pairs.manifest.fingerprint,
            "mined": mined,
        },
    )
    return version, True


def _use_gpu(train: TrainConfig) -> bool:
    available = ray_runtime.num_gpus()
    if train.use_gpu == "always" and available < train.num_workers:
        raise ConfigError(
            f"train.use_gpu=always needs train.num_workers={train.num_workers} GPUs and the cluster has {available}:"
            f" use auto or fewer workers"
        )
    return train.use_gpu != "never" and available >= train.num_workers


def _train_on_workers(config: Config, pairs: Version, draft: Draft, report: loop.Report, use_gpu: bool) -> None:
    events = Queue(actor_options={"num_cpus": 0})

    def worker() -> None:
        _train(config, pairs, draft, events.put, ray.train.torch.get_device())
        ray.train.report({})

    resources = {"CPU": float(config.train.threads_per_worker)} if not use_gpu else None
    cpus = ray_runtime.num_cpus()
    if resources and resources["CPU"] * config.train.num_workers > cpus:
        resources["CPU"] = max(cpus // config.train.num_workers, 0.5)
    trainer = ray.train.torch.TorchTrainer(
        worker,
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.train.num_workers, use_gpu=use_gpu, resources_per_worker=resources
        ),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if use_gpu else "gloo"),
        run_config=ray.train.RunConfig(
            name=f"train-{time.time_ns()}",
            storage_path=draft.store.full(f"{WORK}/ray"),
            storage_filesystem=draft.store.filesystem,
            failure_config=ray.train.FailureConfig(max_failures=config.train.max_failures),
        ),
    )
    with _relay(events, report):
        try:
            trainer.fit()
        except ray.train.WorkerGroupError as error:
            known = (found for found in error.worker_failures.values() if isinstance(found, RayclError))
            raise next(known, error) from error


@contextlib.contextmanager
def _relay(events: Queue, report: loop.Report) -> Iterator[None]:
    """Hand what workers put into ``events`` to ``report``, in a thread of this process."""
    ended = threading.Event()

    def listen() -> None:
        while True:
            try:
                report(events.get(timeout=0.2))
            except Empty:
                if ended.is_set():
                    return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        events.shutdown()


def _train(config: Config, pairs: Version, draft: Draft, report: loop.Report, device: torch.device) -> None:
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
    towers, progress = loop.fit(job, device, listen)
    if exchange.rank() == 0:
        weights.save(draft.store, job.spec, towers, job.inputs.items.to(device))
        record = {
            "losses": progress.losses,
            "pairs_per_s": rates,
            "parameters": sum(parameter.numel() for parameter in towers.parameters()),
        }
        draft.finish_task("train", record)
