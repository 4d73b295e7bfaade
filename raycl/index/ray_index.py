"""The index stage on Ray: which of its tasks run beside one another, and which need a GPU."""

from __future__ import annotations

import logging

from raycl import lineage, ray_runtime, schema
from raycl.config import Config
from raycl.errors import RayclError
from raycl.index import build_tasks, gate_tasks, release, tasks, tuning
from raycl.index.plan import choose
from raycl.index.tasks import STAGE
from raycl.model import weights
from raycl.storage import pointer
from raycl.storage.versions import Version, Workspace

log = logging.getLogger(__name__)

_OF_A_GPU = 0.25
"""So that four embedding tasks share one: each of them waits for the disk most of the time."""


def run(
    config: Config, workspace: Workspace, towers: Version, evaluation: Version, *, force: bool = False
) -> tuple[Version, bool]:
    """Build the release of ``towers`` and judge it; the second value is False when it was built before.

    The release is complete whatever the verdict; only ``publish`` asks for it.
    """
    digest = lineage.digest(config, STAGE, towers.name, evaluation.name)
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    workspace.store.require_writable()
    towers.verified(weights.USER_FILE, weights.ITEM_FILE, weights.CONFIG_FILE)
    pairs = workspace.open("pairs", towers.manifest.inputs["pairs"]).verified("vocab").complete(schema.SEQUENCES)
    draft = workspace.draft(STAGE, digest, cut=lineage.cut(config, STAGE), fresh=force)
    job = tasks.Job(draft, pairs, towers, evaluation, config)

    ray_runtime.connect(config.ray)
    has_gpu = config.index.use_gpu != "never" and ray_runtime.num_gpus() > 0
    blocks = ray_runtime.map_tasks(
        "embed", lambda block: tasks.embed_block(job, block), job.num_blocks, num_gpus=_OF_A_GPU if has_gpu else 0.0
    )
    embedded = tasks.agree(job, blocks)
    plan = choose(config.index, embedded.num_vectors, job.dim, config.gate.min_index_recall)
    log.info("index: %s", plan.reason)
    ray_runtime.call("train", lambda: build_tasks.train(job, plan), num_gpus=int(has_gpu))
    shards = ray_runtime.map_tasks(
        "build_shard", lambda shard: build_tasks.build_shard(job, plan, shard), job.num_shards
    )
    queries = ray_runtime.call("draw_queries", lambda: tasks.draw_queries(job))
    truth = gate_tasks.truth_of(job, embedded, queries)
    ray_runtime.map_tasks("exact", lambda shard: gate_tasks.exact_shard(job, truth, shard), job.num_shards)
    ray_runtime.call("merge_truth", lambda: gate_tasks.merge_truth(job, truth))
    space = tuning.space(plan, embedded.num_vectors, job.dim, max(record["items"] for record in shards))

    def measure(effort: int) -> tuning.Recalls:
        ray_runtime.map_tasks(
            "measure", lambda shard: gate_tasks.measure_shard(job, space, truth, shard, effort), job.num_shards
        )
        merged = ray_runtime.call("merge_answers", lambda: gate_tasks.merge_answers(job, space, truth))
        recalls: tuning.Recalls = merged["recalls"]
        return recalls

    depths = tuning.tune(measure, truth.ks, space, config.gate.min_index_recall)
    measure(depths[0].effort)
    before = _current(workspace)
    measured = ray_runtime.call("conclude", lambda: gate_tasks.conclude(job, space, depths[0], before))
    timed = ray_runtime.map_tasks(
        "time", lambda shard: gate_tasks.time_shard(job, plan, truth, depths[0], shard), job.num_shards
    )
    search_ms = gate_tasks.search_ms(timed)
    return gate_tasks.finish(job, plan, embedded, shards, truth, depths, measured, search_ms), True


def _current(workspace: Workspace) -> Version | None:
    """The release that is published now; None without one, or where it can no longer be read."""
    published = pointer.current(workspace.store)
    if published is None:
        return None
    try:
        found = workspace.open(STAGE, published.release)
        release.verify(found.store)
    except RayclError as error:
        log.warning("the new release is not compared with the current one: %s", error)
        return None
    return found
