"""The second pass of the pairs stage, and what comes between the passes and after them, one task at a time.

A task's files have names of their own and its record comes last, so a task that is killed or run twice does no harm.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import lineage, schema
from raycl.config import Config, TimeSplit
from raycl.data import (
    core_tasks,
    event_types,
    increment,
    kept_events,
    leakage,
    report_sketch,
    report_tasks,
    sequences,
    splits,
    vocabulary_tasks,
)
from raycl.data.columns import whole
from raycl.data.increment import Increment, Place
from raycl.data.packed import has_targets
from raycl.data.pair_plan import Plan, ids
from raycl.data.report_tasks import Before
from raycl.data.rules import Events
from raycl.data.sources import Inputs
from raycl.data.vocabulary_tasks import Items, Numbering
from raycl.errors import InputError, RayclError
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Record, Version

log = logging.getLogger(__name__)


def number_items(plan: Plan, places: Sequence[Place], map_tasks: core_tasks.MapTasks) -> Numbering:
    """Between the passes: the row of every item, and its events in the log."""
    counts = [(place.store, place.counts) for place in places]

    def build(part: int) -> Record:
        return vocabulary_tasks.build_part(plan.draft, part, plan.num_parts, plan.known, counts, plan.least_item_events)

    parts = map_tasks("vocabulary", build, plan.num_parts) if plan.num_parts > 1 else [build(0)]
    return Numbering.of(parts, plan.known)


def find_core(
    plan: Plan, places: Sequence[Place], numbering: Numbering, map_tasks: core_tasks.MapTasks
) -> core_tasks.Core | None:
    """Between the passes, where ``pairs.core_rounds`` asks for it: which items are left once everything rare is out."""
    rules = plan.config.pairs
    if not rules.core_rounds:
        return None

    def cleaned(bucket: int) -> Events:
        events = pa.concat_tables(place.bucket(bucket) for place in places)
        return sequences.clean(events, plan.items(numbering), rules, plan.config.seed, plan.num_types).events

    least = rules.min_item_events, rules.min_user_events
    rounds = core_tasks.Rounds(plan.draft, plan.num_buckets, numbering.num_rows, *least, rules.core_rounds)
    return rounds.run(cleaned, map_tasks)


def build_bucket(
    plan: Plan,
    bucket: int,
    places: Sequence[Place],
    numbering: Numbering,
    cuts: splits.Cuts,
    core: core_tasks.Core | None = None,
    since: Increment | None = None,
) -> Record:
    """Second pass: all events of the bucket's users through the kernel, to one file.

    With ``since``, of the users alone that changed. The record is for ``Draft.settle``. RayclError where a part knows
    what it must not.
    """
    task = bucket_task(bucket)
    if (record := plan.draft.task_done(task)) is not None:
        return record
    store, rules, seed = plan.draft.store, plan.config.pairs, plan.config.seed
    items = plan.items(numbering)
    described = plan.config.users and plan.config.users.features  # a table without features has no rows to point at
    users = ids(store, schema.USERS_FILE, "user") if described else None
    events = pa.concat_tables(place.bucket(bucket) for place in places)
    old = increment.read(since.version, bucket) if since is not None else None
    changed = None
    if since is not None and old is not None:
        flipped = vocabulary_tasks.flipped_items(store, numbering.num_parts)
        changed = increment.touched(events, [place.bucket(bucket) for place in since.changed], flipped)
        events = events.filter(pc.is_in(events["user"], value_set=changed))
    built = sequences.build(
        events,
        items,
        users,
        rules,
        cuts,
        seed=seed,
        in_core=_in_core(store, core.rounds) if core else None,
        type_weights=plan.type_weights,
        num_types=plan.num_types,
    )
    _require_no_leak(built, plan, bucket, cuts, items)
    if old is not None:
        built = increment.merged(old, built, changed, users, rules, cuts)
        _require_no_leak(built, plan, bucket, cuts, items)
    made = {schema.sequences_file(bucket): built.table}
    if plan.kept is not None:
        made[schema.dropped_file(bucket)] = built.dropped
    for path, table in made.items():
        tables.write(store, path, table, durable=False)
    counts = vocabulary_tasks.write_bucket_counts(store, task, sequences.count_items(built), items)
    return {
        "events": built.num_events,
        "users": {part: int(has_targets(built.table, part).sum()) for part in schema.SPLITS},
        "dropped": built.dropped_rows,
        "pairs": built.num_pairs,
        **({} if built.packed.negatives is None else {"negatives": len(built.packed.negatives.items)}),
        "report": report_sketch.Kept.of(built, len(plan.config.event_weights) + len(rules.negative_events)).to_json(),
        "files": [*made, counts],
    }


def _require_no_leak(built: sequences.Built, plan: Plan, bucket: int, cuts: splits.Cuts, items: Items) -> None:
    written = leakage.Written(built.packed, whole(built.table["user"]), built.event_types, built.negatives)
    leakage.require_none(leakage.find(written, plan.config.pairs, cuts, plan.config.seed, items.ids_of), bucket)


def goes_on_from(
    plan: Plan, before: Version | None, cleaned: Sequence[Record], cuts: splits.Cuts, core: core_tasks.Core | None
) -> Increment | None:
    """What this run need not build again; None where it builds all, which is said."""
    if plan.afresh or plan.kept is None or before is None or not plan.known or before.name != plan.known.version:
        return None
    try:
        made_of = json.loads(before.verified(kept_events.LIST).store.read(kept_events.LIST))
    except (RayclError, FileNotFoundError) as error:
        log.info("pairs %s is not gone on from: %s; all users are built", before.name, error)
        return None
    reason = increment.reason_against(before, plan.config.pairs, cuts, plan.num_buckets, has_core=core is not None)
    if not reason and made_of["uri"] != plan.kept.uri:
        reason = "its events are of another cut"
    changed = sorted({record["kept"] for record in cleaned} ^ set(made_of["names"]))
    gone = [name for name in changed if not plan.kept.folder(name).exists(kept_events.EVENTS)]
    if not reason and gone:
        reason = f"{len(gone)} of its fragments are kept no more"
    if reason:
        log.info("pairs %s is not gone on from: %s; all users are built", before.name, reason)
        return None
    new = len({record["kept"] for record in cleaned} - set(made_of["names"]))
    told = before.name, new, len(cleaned), len(changed) - new
    log.info("going on from pairs %s: %d of %d fragments are new to it, and %d that it had are gone", *told)
    return Increment(before, tuple(plan.place(0, {"kept": name}) for name in changed))


def count_items(
    plan: Plan, numbering: Numbering, map_tasks: core_tasks.MapTasks, before: Before | None
) -> Sequence[Record]:
    """After the second pass: the finished vocabulary, and what the report says of its items."""
    buckets = [bucket_task(bucket) for bucket in range(plan.num_buckets)]

    def count(part: int) -> Record:
        table, held_out = vocabulary_tasks.count_part(plan.draft.store, part, numbering, buckets)
        return report_tasks.of_items(part, numbering.num_parts, numbering.num_events, table, held_out, before)

    return map_tasks("count", count, numbering.num_parts) if numbering.num_parts > 1 else [count(0)]


def finish(
    plan: Plan,
    inputs: Inputs,
    numbering: Numbering,
    cuts: splits.Cuts,
    cleaned: Sequence[Record],
    built: Sequence[Record],
    items: Sequence[Record],
    core: core_tasks.Core | None = None,
    before: Before | None = None,
    versions: Mapping[str, str] | None = None,
) -> Version:
    """At the end: the last checks, the report, and the commit.

    ``items`` is what ``count_items`` said, ``before`` the version that the report compares this one with, and
    ``versions`` names others that they are made of, by stage.

    Raises InputError where the log leaves no training pairs.
    """
    counts, dropped = add_up(cleaned, built)
    report_tasks.write(plan.draft, plan.config, counts, dropped, cleaned, built, items, before)
    if plan.kept is not None:
        made_of = {"uri": plan.kept.uri, "names": [record["kept"] for record in cleaned]}
        plan.draft.store.write(kept_events.LIST, json.dumps(made_of).encode())
    return plan.draft.commit(
        inputs={table.field: table.root_uri for table in inputs.tables} | dict(versions or {}),
        config=lineage.part(plan.config, "pairs"),
        counts=counts | {"items": numbering.num_active} | dict(plan.set_aside),
        dropped=dropped,
        facts={
            **asdict(cuts),
            **({"core": asdict(core)} if core else {}),
            **({"context": list(plan.context)} if plan.context else {}),
            "pairs_by_file": {part: [record["pairs"][part] for record in built] for part in schema.SPLITS},
            "vocabulary": {
                "parts": numbering.num_parts,
                "rows": numbering.num_rows,
                "goes_on_from": plan.known.version if plan.known else None,
            },
        },
        columns={
            "sequences": schema.described(
                schema.sequences(
                    plan.user_type,
                    event_types=plan.num_types > 1,
                    negatives=plan.config.pairs.has_negatives,
                    context=plan.context,
                )
            ),
            "vocabulary": schema.described(schema.vocabulary(plan.item_type)),
        },
    )


def add_up(cleaned: Sequence[Record], built: Sequence[Record]) -> tuple[dict[str, int], dict[str, int]]:
    """Counts of all tasks, and their drops by reason; every row is in one of the two.

    ``events`` include the ``negatives``, which are counted where the rules have any.

    Raises InputError where no training pair is left.
    """
    counts = {"rows_in": sum(record["rows"] for record in cleaned), "events": sum(record["events"] for record in built)}
    for part in schema.SPLITS:
        counts[f"{part}_users"] = sum(record["users"][part] for record in built)
        counts[f"{part}_pairs"] = sum(record["pairs"][part] for record in built)
    if any("negatives" in record for record in built):
        counts["negatives"] = sum(record["negatives"] for record in built)
    dropped = drops([*cleaned, *built])
    if counts["rows_in"] != counts["events"] + sum(dropped.values()):
        raise AssertionError(f"rows were lost: {counts['rows_in']} in, {counts['events']} kept, {dropped} dropped")
    if not counts["train_pairs"]:
        remedy = "see pairs.min_user_events, pairs.min_history and the column mapping"
        if dropped and max(dropped, key=lambda reason: dropped[reason]) == "unknown_event":
            remedy = event_types.none_weighted(_unknown_types(cleaned))
        raise InputError(f"logs: {counts['rows_in']} rows leave no training pairs (dropped: {dropped}): {remedy}")
    return counts, dropped


def _unknown_types(cleaned: Sequence[Record]) -> Counter[str]:
    """Rows of the event types that the config does not name, as far as the tasks tell of them."""
    rows: Counter[str] = Counter()
    for record in cleaned:
        rows.update(record.get("report", {}).get("unknown", {}))
    return rows


def drops(records: Sequence[Record]) -> dict[str, int]:
    """Sum the drops of all tasks by reason."""
    total: dict[str, int] = {}
    for record in records:
        for reason, rows in record["dropped"].items():
            total[reason] = total.get(reason, 0) + rows
    return total


@functools.lru_cache(maxsize=2)
def _in_core(store: Store, rounds: int) -> npt.NDArray[np.bool_]:
    return core_tasks.read(store, rounds)


def to_cuts(config: Config, records: Sequence[Record]) -> splits.Cuts:
    """Where validation and test begin, for a split by time; for a split by column, whether it names validation."""
    if not isinstance(config.pairs.split, TimeSplit):
        return splits.Cuts(val_is_named=any(record["val_is_named"] for record in records))
    sketches = [(int(record["events"]), list(record["times"])) for record in records]
    return splits.cut_times(sketches, config.pairs.split.val_share, config.pairs.split.test_share)


def bucket_task(bucket: int) -> str:
    """The name of the task that builds a bucket."""
    return f"bucket-{bucket:06d}"
