"""The pairs stage on Ray Data: where its two passes run. What they do is in ``pair_tasks``."""

from __future__ import annotations

import time
from typing import Any

from raycl import lineage, ray_runtime, schema
from raycl.config import Config
from raycl.data import pair_tasks, sources
from raycl.errors import InputError
from raycl.storage.versions import Version, Workspace

STAGE = "pairs"
_DAY_MS = 86_400_000


def run(config: Config, workspace: Workspace, *, force: bool = False) -> tuple[Version, bool]:
    """Make the pairs of ``config``; the second value is False when a finished version of the same work was found.

    A run that was killed goes on from its finished fragments and buckets. Raises InputError before Ray starts where
    the sources or the workspace cannot be used.
    """
    inputs = sources.open_inputs(config)
    tables = [table for table in (*inputs.logs, inputs.items, inputs.users) if table is not None]
    digest = lineage.digest(config, STAGE, [table.identity() for table in tables])
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    workspace.store.require_writable()
    draft = workspace.draft(STAGE, digest, fresh=force)
    fragments = sources.fragments(inputs.logs, config.pairs.rows_per_fragment)
    setup = draft.task_done("setup") or {}
    if not setup:
        setup = pair_tasks.write_catalogue(draft.store, config, inputs)
        setup["latest_ms"] = time.time_ns() // 1_000_000 + _DAY_MS
        draft.finish_task("setup", setup)
    latest_ms = setup.pop("latest_ms")
    plan = pair_tasks.Plan(draft, config, inputs.user_type, inputs.item_type, latest_ms, len(fragments))

    ray_runtime.connect(config.ray)
    cleaned = ray_runtime.map_tasks(
        "clean", lambda number: pair_tasks.clean_fragment(plan, number, fragments[number]), len(fragments)
    )
    num_items = pair_tasks.write_vocabulary(plan)
    cuts = pair_tasks.to_cuts(config, cleaned)
    built = ray_runtime.map_tasks(
        "build", lambda number: pair_tasks.build_bucket(plan, number, cuts), config.pairs.num_buckets
    )
    pair_tasks.finish_vocabulary(plan)

    counts = _counts(cleaned, built, num_items) | setup
    dropped = pair_tasks.drops([*cleaned, *built])
    if counts["rows_in"] != counts["events"] + sum(dropped.values()):
        raise AssertionError(f"rows were lost: {counts['rows_in']} in, {counts['events']} kept, {dropped} dropped")
    if not counts["train_pairs"]:
        raise InputError(
            f"logs: {counts['rows_in']} rows leave no training pairs (dropped: {dropped}): see pairs.min_user_events,"
            f" pairs.min_history and the column mapping"
        )
    version = draft.commit(
        inputs={table.field: table.root_uri for table in tables},
        config=lineage.part(config, STAGE),
        counts=counts,
        dropped=dropped,
        facts={
            **pair_tasks.cuts_as_facts(cuts),
            "pairs_by_file": {name: [record["pairs"][name] for record in built] for name in schema.SPLITS},
        },
        columns={
            "sequences": schema.described(schema.sequences(inputs.user_type)),
            "vocabulary": schema.described(schema.vocabulary(inputs.item_type)),
        },
    )
    return version, True


def _counts(cleaned: list[dict[str, Any]], built: list[dict[str, Any]], num_items: int) -> dict[str, int]:
    counts = {"rows_in": sum(record["rows"] for record in cleaned), "events": sum(record["events"] for record in built)}
    for part in schema.SPLITS:
        counts[f"{part}_users"] = sum(record["users"][part] for record in built)
        counts[f"{part}_pairs"] = sum(record["pairs"][part] for record in built)
    return counts | {"items": num_items}
