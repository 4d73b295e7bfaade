"""The index stage on Ray Data: runs of items are embedded, then shards built, each a task of its own."""

from __future__ import annotations

from raycl import lineage, ray_runtime
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import RayclError
from raycl.index import build, release, tasks
from raycl.model import weights
from raycl.storage.versions import Version, Workspace

STAGE = "releases"


def run(
    config: Config, workspace: Workspace, towers: Version, evaluation: Version, *, force: bool = False
) -> tuple[Version, bool]:
    """Build the release of ``towers`` and judge it; the second value is False when it was built before.

    The release is complete whatever the verdict; only ``publish`` asks for it. RayclError where no vector is finite.
    """
    digest = lineage.digest(config, STAGE, towers.name, evaluation.name)
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    workspace.store.require_writable()
    pairs_version = workspace.open("pairs", towers.manifest.inputs["pairs"])
    draft = workspace.draft(STAGE, digest, fresh=force)
    job = tasks.Job(draft, Pairs.of(pairs_version), towers.store, config, pairs_version.manifest.counts["items"])

    ray_runtime.connect(config.ray)
    embedded = ray_runtime.map_tasks("embed", lambda block: tasks.embed_block(job, block), job.num_blocks)
    not_finite = sum(record["not_finite"] for record in embedded)
    if not_finite == job.num_items:
        raise RayclError(
            f"no item has a finite vector in towers {towers.name}: lower train.learning_rate and train again"
        )
    plan = build.plan(config.index, job.num_items - not_finite)
    centroids = tasks.train_quantizer(job, plan)
    shards = ray_runtime.map_tasks(
        "build_shard", lambda shard: tasks.build_shard(job, shard, centroids), config.index.num_shards
    )
    tasks.write_user_side(job)
    nprobe, evidence, verdict = tasks.judge(job, plan, evaluation.manifest.facts)
    made = towers.manifest.checksums
    origin = release.Lineage(
        pairs_version.name, towers.name, evaluation.name, made[weights.USER_FILE], made[weights.ITEM_FILE]
    )
    how = release.Search(
        plan.kind,
        config.index.num_shards,
        plan.num_lists,
        nprobe,
        weights.load_spec(towers.store).model.dim,
        origin.item_tower,
    )
    release.write_facts(draft.store, how, origin, evidence, verdict)
    version = draft.commit(
        inputs={"pairs": pairs_version.name, "towers": towers.name, "evaluation": evaluation.name},
        config=lineage.part(config, STAGE),
        counts={
            "items": job.num_items,
            "vectors": sum(record["items"] for record in shards),
            "index_bytes": sum(record["bytes"] for record in shards),
        },
        dropped={"not_finite": not_finite} if not_finite else {},
        facts={
            "index_recall": evidence.index_recall,
            "nprobe": nprobe,
            "plan": plan.reason,
            "publish": verdict.publish,
            "reason": verdict.reason,
        },
    )
    return version, True
