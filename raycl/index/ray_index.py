"""The index stage on Ray: which of its tasks run beside one another, and which need a GPU."""

from __future__ import annotations

from raycl import lineage, ray_runtime, schema
from raycl.config import Config
from raycl.index import build, search, tasks
from raycl.index.tasks import STAGE
from raycl.model import weights
from raycl.storage.versions import Version, Workspace


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
    blocks = ray_runtime.map_tasks("embed", lambda block: tasks.embed_block(job, block), job.num_blocks)
    embedded = tasks.agree(job, blocks)
    plan = build.plan(config.index, embedded.num_vectors)
    if plan.num_lists:
        gpus = min(ray_runtime.num_gpus(), 1) if config.index.use_gpu != "never" else 0
        ray_runtime.call("train_quantizer", lambda: tasks.train_quantizer(job, plan), num_gpus=gpus)
    ray_runtime.call("draw_queries", lambda: tasks.draw_queries(job))
    shards = ray_runtime.map_tasks("build_shard", lambda shard: tasks.build_shard(job, plan, shard), job.num_shards)
    merged = ray_runtime.call("merge_truth", lambda: tasks.merge_truth(job, embedded))
    truth = tasks.truth_of(job, embedded, merged)

    def measure(nprobe: int) -> list[float]:
        found = ray_runtime.map_tasks(
            "measure", lambda shard: tasks.measure_shard(job, shard, nprobe, truth), job.num_shards
        )
        return tasks.recalls(truth, found)

    depths = search.tune(measure, truth.ks, plan.num_lists, config.gate.min_index_recall)
    return tasks.finish(job, plan, embedded, shards, truth, depths), True
