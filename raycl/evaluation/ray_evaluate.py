"""The evaluation stage as Ray tasks: one a file of held-out users, the item vectors shared through the object store."""

from __future__ import annotations

import json

import ray

from raycl import lineage, ray_runtime
from raycl.config import Config, EvaluationConfig
from raycl.data.handoff import Pairs
from raycl.errors import InputError
from raycl.evaluation import tasks
from raycl.evaluation.metrics import Sums
from raycl.model import embed, weights
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace

STAGE = "evaluations"
_measure = ray.remote(tasks.measure_file)


def run(config: Config, workspace: Workspace, towers: Version, *, force: bool = False) -> tuple[Version, bool]:
    """Measure ``towers`` on the test part of their pairs; the second value is False when that was done before."""
    digest = lineage.digest(config, STAGE, towers.name)
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    workspace.store.require_writable()
    pairs = Pairs.of(workspace.open("pairs", towers.manifest.inputs["pairs"]))
    draft = workspace.draft(STAGE, digest, fresh=force)
    ray_runtime.connect(config.ray)
    ours, popular = _sums(pairs, towers.store, config.evaluation)
    if not ours.num_users:
        raise InputError(
            "the test part holds no user with an item to find: look at pairs.split and pairs.min_user_events"
        )
    found = {"towers": ours.summary(), "popularity": popular.summary()}
    draft.store.write("metrics.json", json.dumps(found, indent=2).encode())
    version = draft.commit(
        inputs={"towers": towers.name, "pairs": towers.manifest.inputs["pairs"]},
        config=lineage.part(config, STAGE),
        counts={"users": ours.num_users},
        facts={
            **found,
            "protocol": "full catalogue, context items left out, state before the first test event",
            "split": pairs.rules.split.kind,
        },
    )
    return version, True


def _sums(pairs: Pairs, towers: Store, config: EvaluationConfig) -> tuple[Sums, Sums]:
    vectors = ray.put(embed.items(weights.load_item(towers), tasks.item_features(pairs)))
    waiting = [
        _measure.remote(pairs, towers, vectors, config, path) for path, num_pairs in pairs.files("test") if num_pairs
    ]
    ours, popular = Sums(), Sums()
    for measured in ray.get(waiting):
        ours.add(measured.towers)
        popular.add(measured.popularity)
    return ours, popular
