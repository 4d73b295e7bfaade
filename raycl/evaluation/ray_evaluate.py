"""The evaluation stage on Ray: one task a file of held-out users, the item vectors shared through the object store."""

from __future__ import annotations

import json
from typing import Any

import ray

from raycl import lineage, ray_runtime, schema
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import InputError
from raycl.evaluation import tasks
from raycl.model import embed, weights
from raycl.model.users import CONTEXT_FILE
from raycl.storage.versions import Version, Workspace

STAGE = "evaluations"


def run(config: Config, workspace: Workspace, towers: Version, *, force: bool = False) -> tuple[Version, bool]:
    """Measure ``towers`` on held-out users; the second value is False when that was done before.

    A run that was killed goes on from its finished files.
    """
    digest = lineage.digest(config, STAGE, towers.name)
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    workspace.store.require_writable()
    towers.verified(weights.USER_FILE, weights.ITEM_FILE, weights.CONFIG_FILE, CONTEXT_FILE)
    held = workspace.open("pairs", towers.manifest.inputs["pairs"]).verified("vocab").complete(schema.SEQUENCES)
    pairs = Pairs.of(held)
    job = tasks.Job(workspace.draft(STAGE, digest, fresh=force), pairs, towers.store, config.evaluation)
    ray_runtime.connect(config.ray)
    vectors = embed.items(weights.load_item(towers.store), tasks.item_features(pairs))[~pairs.retired()]
    shared = ray.put(vectors)

    def measure(number: int) -> dict[str, Any]:
        held.verified(job.files[number][0])
        return tasks.measure_file(job, number, ray.get(shared))

    records = ray_runtime.map_tasks("evaluate", measure, len(job.files))
    sums = tasks.merge(job, records, len(vectors))
    if not sums["towers"].num_users:
        raise InputError(
            f"the {config.evaluation.part} part holds no user with an item to find: look at pairs.split and"
            f" pairs.min_user_events"
        )
    found = {name: total.summary() for name, total in sums.items()}
    job.draft.store.write("metrics.json", json.dumps(found, indent=2).encode())
    version = job.draft.commit(
        inputs={"towers": towers.name, "pairs": towers.manifest.inputs["pairs"]},
        config=lineage.part(config, STAGE),
        counts={"users": sums["towers"].num_users},
        facts={
            **found,
            "part": config.evaluation.part,
            "protocol": "full catalogue, context items left out, state before the first held-out event",
            "split": pairs.rules.split.kind,
        },
    )
    return version, True
