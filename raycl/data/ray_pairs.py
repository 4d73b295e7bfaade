"""The pairs stage on Ray Data: where its two passes run. What they do is in ``pair_tasks``."""

from __future__ import annotations

import threading
import time

from raycl import config_encode, lineage, ray_runtime, schema
from raycl.config import Config
from raycl.data import (
    clean_tasks,
    kept_events,
    pair_plan,
    pair_tasks,
    report_tasks,
    sources,
    vocabulary_tasks,
)
from raycl.data.kept_events import WINDOWS
from raycl.pages import drawing
from raycl.storage.versions import Version, Workspace
from raycl.text.tasks import FOLDER
from raycl.text.tasks import STAGE as ENCODINGS

STAGE = "pairs"


def run(config: Config, workspace: Workspace, *, force: bool = False) -> tuple[Version, bool]:
    """Make the pairs of ``config``; the second value is False when a finished version of the same work was found.

    A run that was killed goes on from its finished fragments and buckets. Raises InputError before Ray starts where
    the sources or the workspace cannot be used.
    """
    inputs = sources.open_inputs(config)
    first = _first(config, workspace, force=force)
    if (encoded := _encoded(config, workspace, first)) is not None:
        inputs = sources.open_inputs(config, encoded.store.under(FOLDER).uri)
    digest = lineage.digest(config, STAGE, schema.PAIRS_FORMAT, [table.identity() for table in inputs.tables])
    if not force and (done := workspace.find(STAGE, digest)):
        return done, False
    workspace.store.require_writable()
    draft = workspace.draft(STAGE, digest, cut=lineage.cut(config, STAGE), fresh=force)
    fragments = sources.fragments(inputs.logs, config.pairs.rows_per_fragment)
    newest = first or lineage.newest_pairs(config, workspace, WINDOWS)
    known = vocabulary_tasks.known(newest, inputs.item_type)
    now_ms = time.time_ns() // 1_000_000
    plan = pair_plan.begin(draft, workspace.store, config, inputs, now_ms, known, afresh=force)

    ray_runtime.connect(config.ray)
    threading.Thread(target=drawing.load, daemon=True).start()
    cleaned = ray_runtime.map_tasks(
        "clean",
        lambda number: clean_tasks.clean_fragment(plan, number, fragments[number]),
        len(fragments),
        lambda number, record: draft.settle(pair_plan.fragment_task(number), record),
    )
    places = [plan.place(number, record) for number, record in enumerate(cleaned)]
    numbering = pair_tasks.number_items(plan, places, ray_runtime.map_tasks)
    cuts = pair_tasks.to_cuts(config, cleaned)
    core = pair_tasks.find_core(plan, places, numbering, ray_runtime.map_tasks)
    since = pair_tasks.goes_on_from(plan, newest, cleaned, cuts, core)
    built = ray_runtime.map_tasks(
        "build",
        lambda bucket: pair_tasks.build_bucket(plan, bucket, places, numbering, cuts, core, since),
        plan.num_buckets,
        lambda bucket, record: draft.settle(pair_tasks.bucket_task(bucket), record),
    )
    before = report_tasks.previous(workspace, digest, *([first.name] if first else []))
    items = pair_tasks.count_items(plan, numbering, ray_runtime.map_tasks, before)
    versions = {ENCODINGS: encoded.name} if encoded is not None else {}
    version = pair_tasks.finish(plan, inputs, numbering, cuts, cleaned, built, items, core, before, versions)
    if plan.kept is not None:
        kept_events.sweep(workspace.store, now_ms)
    return version, True


def _first(config: Config, workspace: Workspace, *, force: bool) -> Version | None:
    """The pairs that encoders are tuned on; None where none is.

    The pairs of ``config`` go on from them: items have the same rows, so events of one moment stand in the same order,
    and what is training here is training there.
    """
    plain = config_encode.before(config)
    if plain is None:
        return None
    from raycl.text import ray_tune

    ray_tune.require(config)
    return run(plain, workspace, force=force)[0]


def _encoded(config: Config, workspace: Workspace, first: Version | None) -> Version | None:
    """The item table with the vectors of its words; None where none is asked for."""
    if config.items is None or not config.items.encode:
        return None
    from raycl.text import ray_encode  # which brings torch: two seconds that a run without words need not wait

    return ray_encode.run(config, workspace, first)
