"""The evaluation stage on Ray: one task a file of held-out users, what they share through the object store."""

from __future__ import annotations

from typing import Any

import ray

from raycl import lineage, ray_runtime, schema
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError
from raycl.evaluation import stage, tasks
from raycl.evaluation.tasks import Approximate
from raycl.model import weights
from raycl.model.users import CONTEXT_FILE
from raycl.storage.versions import Version, Workspace

STAGE = "evaluations"


def run(
    config: Config,
    workspace: Workspace,
    towers: Version,
    *,
    force: bool = False,
    index: tuple[str, Approximate] | None = None,
) -> tuple[Version, bool]:
    """Measure ``towers`` on held-out users; the second value is False when that was done before.

    ``index`` is the name of a release of these towers and its search, whose lists are measured beside the exact ones.
    A run that was killed goes on from its finished files.
    """
    made_from = (towers.name, index[0]) if index else (towers.name,)
    digest = lineage.digest(config, STAGE, *made_from)
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    workspace.store.require_writable()
    towers.verified(weights.USER_FILE, weights.ITEM_FILE, weights.CONFIG_FILE, CONTEXT_FILE)
    held = workspace.open("pairs", towers.manifest.inputs["pairs"]).verified("vocab").complete(schema.SEQUENCES)
    draft = workspace.draft(STAGE, digest, fresh=force)
    seed = int(held.manifest.config["seed"])
    job = tasks.Job(draft, Pairs.of(held), towers.store, config.evaluation, seed, index[1] if index else None)

    ray_runtime.connect(config.ray)

    def fit() -> dict[str, Any]:
        held.verified(*(path for path, _ in job.pairs.files("train")))
        return stage.fit_baselines(job)

    ray_runtime.call("baselines", fit)
    found = stage.shared(job, config, towers)
    shared = ray.put(found)
    num_gpus = _gpus(config)

    def measure(number: int) -> dict[str, Any]:
        held.verified(job.files[number][0])
        return tasks.measure_file(job, number, ray.get(shared))

    records = ray_runtime.map_tasks("evaluate", measure, len(job.files), num_gpus=num_gpus)
    measured = stage.measured(job, records)
    names, num_items = stage.metric_names(job, found), len(found.question.catalogue.train_counts)
    groups = measured.groups(ray_runtime.num_cpus())
    models = measured.models

    def summarise(number: int) -> dict[str, Any]:
        if number < len(groups):
            return stage.sum_up(job, names, groups[number])
        if number < len(groups) + len(models):
            return tasks.exposure(job, measured.files, models[number - len(groups)], num_items)
        return tasks.suspects(job, len(records))

    told = ray_runtime.map_tasks("summarise", summarise, len(groups) + len(models) + 1)
    sums, spread, suspects = told[: len(groups)], told[len(groups) : -1], told[-1]
    inputs = {"towers": towers.name, "pairs": held.name} | ({"release": index[0]} if index else {})
    return stage.finish(job, config, held, found, measured, (sums, spread, suspects), inputs), True


def _gpus(config: Config) -> int:
    """GPUs of each task: one where tasks may have some and the cluster has any."""
    wanted = config.evaluation.use_gpu
    there = wanted != "never" and ray_runtime.num_gpus() > 0
    if wanted == "always" and not there:
        raise ConfigError("evaluation.use_gpu=always and the cluster has no GPU: add one or use auto")
    return int(there)
