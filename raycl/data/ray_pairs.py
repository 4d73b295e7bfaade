"""The pairs stage on Ray Data: where its two passes run. What they do is in ``pair_tasks``."""

from __future__ import annotations

import time

from raycl import lineage, ray_runtime, schema
from raycl.config import Config
from raycl.data import pair_tasks, report_tasks, sources, vocabulary_tasks
from raycl.storage.versions import Version, Workspace

STAGE = "pairs"

WINDOWS = ("since", "until", "version")
"""Settings of a log that move on from day to day: items keep their rows across them."""


def run(config: Config, workspace: Workspace, *, force: bool = False) -> tuple[Version, bool]:
    """Make the pairs of ``config``; the second value is False when a finished version of the same work was found.

    A run that was killed goes on from its finished fragments and buckets. Raises InputError before Ray starts where
    the sources or the workspace cannot be used.
    """
    inputs = sources.open_inputs(config)
    digest = lineage.digest(config, STAGE, schema.PAIRS_FORMAT, [table.identity() for table in inputs.tables])
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    workspace.store.require_writable()
    draft = workspace.draft(STAGE, digest, cut=lineage.cut(config, STAGE), fresh=force)
    fragments = sources.fragments(inputs.logs, config.pairs.rows_per_fragment)
    known = vocabulary_tasks.known(lineage.newest_pairs(config, workspace, WINDOWS), inputs.item_type)
    plan = pair_tasks.begin(draft, config, inputs, len(fragments), time.time_ns() // 1_000_000, known)

    ray_runtime.connect(config.ray)
    cleaned = ray_runtime.map_tasks(
        "clean", lambda number: pair_tasks.clean_fragment(plan, number, fragments[number]), len(fragments)
    )
    numbering = pair_tasks.number_items(plan, ray_runtime.map_tasks)
    cuts = pair_tasks.to_cuts(config, cleaned)
    core = pair_tasks.find_core(plan, numbering, ray_runtime.map_tasks)
    built = ray_runtime.map_tasks(
        "build", lambda number: pair_tasks.build_bucket(plan, number, numbering, cuts, core), plan.num_buckets
    )
    before = report_tasks.previous(workspace, digest)
    items = pair_tasks.count_items(plan, numbering, ray_runtime.map_tasks, before)
    return pair_tasks.finish(plan, inputs, numbering, cuts, cleaned, built, items, core, before), True
