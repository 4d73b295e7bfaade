"""The two passes of the pairs stage, one task at a time: read, call the pure core, write, and leave a record.

A task's files have names of their own and its record comes last, so a task that is killed or run twice does no harm.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl import lineage, schema
from raycl.config import ColumnSplit, Config, TimeSplit
from raycl.data import (
    catalogue_tasks,
    clean,
    core_tasks,
    leakage,
    report_sketch,
    report_tasks,
    sequences,
    splits,
    vocabulary_tasks,
)
from raycl.data.columns import whole
from raycl.data.hashing import bucket_of
from raycl.data.id_map import IdMap
from raycl.data.packed import has_targets
from raycl.data.report_tasks import Before
from raycl.data.rules import Events
from raycl.data.sources import Fragment, Inputs, log_columns
from raycl.data.vocabulary_tasks import Items, Known, Numbering
from raycl.errors import InputError
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft, Record, Version

_DAY_MS = 86_400_000
_MOST_ROWS, _LEAST_ROWS, _FEW_BUCKETS = 2_000_000, 25_000, 16


@dataclass(frozen=True)
class Plan:
    """What every task needs to know."""

    draft: Draft
    config: Config
    user_type: pa.DataType
    item_type: pa.DataType
    latest_ms: int
    num_fragments: int
    num_buckets: int
    num_parts: int
    """Parts of the vocabulary."""
    known: Known | None = None
    """The vocabulary that this one goes on from."""
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """Rows of the item and user tables that were left out, by reason."""

    def items(self, numbering: Numbering) -> Items:
        """Which row an item has in the second pass."""
        return Items(self.draft.store, numbering, self.least_item_events)

    @property
    def least_item_events(self) -> int:
        """Good rows in the log without which an item has no events in pairs."""
        return self.config.pairs.min_item_events if self.config.pairs.rare_items == "drop" else 0

    @property
    def type_weights(self) -> tuple[float, ...]:
        """Weights of the event types by their codes; without types every event is of code 0 and weight 1."""
        has_types = any(log.columns.event for log in self.config.logs)
        return tuple(self.config.event_weights.values()) if has_types else (1.0,)

    @property
    def has_weights(self) -> bool:
        """Whether an event's weight is more than that of its type."""
        logs = [log.columns for log in self.config.logs]
        mixed = self.type_weights != (1.0,) and any(columns.event is None for columns in logs)
        return mixed or any(columns.weight for columns in logs)


def begin(
    draft: Draft, config: Config, inputs: Inputs, num_fragments: int, now_ms: int, known: Known | None = None
) -> Plan:
    """Write what the item and user tables hold, and decide what all tasks share; a resumed draft keeps what it had.

    A time is believed up to a day after ``now_ms``; items of ``known`` keep their rows.
    """
    setup = draft.task_done("setup")
    if setup is None:
        num_rows = sum(log.num_rows for log in inputs.logs)
        setup = {
            "set_aside": catalogue_tasks.write(draft.store, config, inputs, known),
            "latest_ms": now_ms + _DAY_MS,
            "num_parts": vocabulary_tasks.num_parts(num_rows, known, has_catalogue=config.items is not None),
            "known": asdict(known) if known else None,
            "num_buckets": config.pairs.num_buckets or derived_buckets(num_rows),
        }
        draft.finish_task("setup", setup)
    resumed = Known(**setup["known"]) if setup["known"] else None
    return Plan(
        draft, config, inputs.user_type, inputs.item_type, num_fragments=num_fragments, **(setup | {"known": resumed})
    )


def derived_buckets(num_rows: int) -> int:
    """Buckets of about 2 million rows or fewer: 16 at least, and for small logs one for every 25,000 rows."""
    return max(-(-num_rows // _MOST_ROWS), min(_FEW_BUCKETS, -(-num_rows // _LEAST_ROWS)))


def clean_fragment(plan: Plan, number: int, fragment: Fragment) -> dict[str, Any]:
    """First pass: clean one fragment, and write its events with the rows of each bucket together."""
    task = _fragment_task(number)
    if (record := plan.draft.task_done(task)) is not None:
        return record
    store, log = plan.draft.store, plan.config.logs[fragment.log]
    if not isinstance(plan.config.pairs.split, ColumnSplit):
        log = log.model_copy(update={"columns": log.columns.model_copy(update={"split": None})})
    cleaner = clean.Cleaner(
        log,
        plan.config.event_weights,
        plan.latest_ms,
        plan.user_type,
        plan.item_type,
        _ids(store, vocabulary_tasks.CATALOGUE_IDS, "item") if plan.config.items else None,
        with_weights=plan.has_weights,
        with_splits=isinstance(plan.config.pairs.split, ColumnSplit),
    )
    rows = fragment.read(log_columns(log))
    outside = cleaner.outside(rows)
    events, bad = cleaner.clean(rows, fragment.first_row, outside)
    if bad.num_rows:
        origin = pa.array([f"{fragment.root_uri}/{fragment.path}"] * bad.num_rows)
        tables.write(store, f"quarantine/part-{number:06d}.parquet", bad.append_column("file", origin))
    vocabulary_tasks.write_counts(store, task, events["item"], plan.num_parts)
    buckets = bucket_of(events["user"], plan.num_buckets)
    tables.write_buckets(store, f"{WORK}/events/{task}.arrow", events, buckets, plan.num_buckets)
    by_time = isinstance(plan.config.pairs.split, TimeSplit)
    record = {
        "rows": fragment.num_rows,
        "events": events.num_rows,
        "dropped": clean.count_reasons(bad) | clean.count_outside(outside),
        "times": splits.quantiles(events["time_ms"].to_numpy()) if by_time else [],
        "val_is_named": cleaner.with_splits and bool(np.any(events["split"].to_numpy() == splits.VAL)),
        "report": report_sketch.Rows.of(cleaner, events, bad).to_json(),
    }
    plan.draft.finish_task(task, record)
    return record


def number_items(plan: Plan, map_tasks: core_tasks.MapTasks) -> Numbering:
    """Between the passes: the row of every item, and its events in the log."""
    tasks = [_fragment_task(number) for number in range(plan.num_fragments)]

    def build(part: int) -> Record:
        return vocabulary_tasks.build_part(plan.draft, part, plan.known, tasks, plan.least_item_events)

    parts = map_tasks("vocabulary", build, plan.num_parts) if plan.num_parts > 1 else [build(0)]
    return Numbering.of(parts, plan.known)


def find_core(plan: Plan, numbering: Numbering, map_tasks: core_tasks.MapTasks) -> core_tasks.Core | None:
    """Between the passes, where ``pairs.core_rounds`` asks for it: which items are left once everything rare is out."""
    rules = plan.config.pairs
    if not rules.core_rounds:
        return None

    def cleaned(bucket: int) -> Events:
        return sequences.clean(_read_bucket(plan, bucket), plan.items(numbering), rules, plan.config.seed).events

    least = rules.min_item_events, rules.min_user_events
    rounds = core_tasks.Rounds(plan.draft, plan.num_buckets, numbering.num_rows, *least, rules.core_rounds)
    return rounds.run(cleaned, map_tasks)


def build_bucket(
    plan: Plan, bucket: int, numbering: Numbering, cuts: splits.Cuts, core: core_tasks.Core | None = None
) -> dict[str, Any]:
    """Second pass: all events of the bucket's users through the kernel, to one file.

    RayclError where a part knows what it must not.
    """
    task = _bucket_task(bucket)
    if (record := plan.draft.task_done(task)) is not None:
        return record
    store, rules, seed = plan.draft.store, plan.config.pairs, plan.config.seed
    items = plan.items(numbering)
    described = plan.config.users and plan.config.users.features  # a table without features has no rows to point at
    users = _ids(store, schema.USERS_FILE, "user") if described else None
    built = sequences.build(
        _read_bucket(plan, bucket),
        items,
        users,
        rules,
        cuts,
        seed=seed,
        in_core=_in_core(store, core.rounds) if core else None,
        type_weights=plan.type_weights,
    )
    written = leakage.Written(built.packed, whole(built.table["user"]), built.event_types)
    leaks = leakage.find(written, rules, cuts, seed, items.ids_of)
    leakage.require_none(leaks, bucket)
    tables.write(store, schema.sequences_file(bucket), built.table)
    vocabulary_tasks.write_bucket_counts(store, task, sequences.count_items(built), items)
    record = {
        "events": built.num_events,
        "users": {part: int(has_targets(built.table, part).sum()) for part in schema.SPLITS},
        "dropped": built.dropped,
        "pairs": built.num_pairs,
        "report": report_sketch.Kept.of(built, len(plan.config.event_weights)).to_json(),
    }
    plan.draft.finish_task(task, record)
    return record


def _read_bucket(plan: Plan, bucket: int) -> pa.Table:
    """All cleaned events of the bucket's users."""
    return pa.concat_tables(
        tables.read_bucket(plan.draft.store, f"{WORK}/events/fragment-{number:06d}.arrow", bucket)
        for number in range(plan.num_fragments)
    )


def count_items(
    plan: Plan, numbering: Numbering, map_tasks: core_tasks.MapTasks, before: Before | None
) -> Sequence[Record]:
    """After the second pass: the finished vocabulary, and what the report says of its items."""
    buckets = [_bucket_task(bucket) for bucket in range(plan.num_buckets)]

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
) -> Version:
    """At the end: the last checks, the report, and the commit.

    ``items`` is what ``count_items`` said, and ``before`` the version that the report compares this one with.

    Raises InputError where the log leaves no training pairs.
    """
    counts, dropped = add_up(cleaned, built)
    report_tasks.write(plan.draft, plan.config, counts, dropped, cleaned, built, items, before)
    return plan.draft.commit(
        inputs={table.field: table.root_uri for table in inputs.tables},
        config=lineage.part(plan.config, "pairs"),
        counts=counts | {"items": numbering.num_active} | dict(plan.set_aside),
        dropped=dropped,
        facts={
            **asdict(cuts),
            **({"core": asdict(core)} if core else {}),
            "pairs_by_file": {part: [record["pairs"][part] for record in built] for part in schema.SPLITS},
            "vocabulary": {
                "parts": numbering.num_parts,
                "rows": numbering.num_rows,
                "goes_on_from": plan.known.version if plan.known else None,
            },
        },
        columns={
            "sequences": schema.described(schema.sequences(plan.user_type, event_types=len(plan.type_weights) > 1)),
            "vocabulary": schema.described(schema.vocabulary(plan.item_type)),
        },
    )


def add_up(cleaned: Sequence[Record], built: Sequence[Record]) -> tuple[dict[str, int], dict[str, int]]:
    """Counts of all tasks, and their drops by reason; every row is in one of the two.

    Raises InputError where no training pair is left.
    """
    counts = {"rows_in": sum(record["rows"] for record in cleaned), "events": sum(record["events"] for record in built)}
    for part in schema.SPLITS:
        counts[f"{part}_users"] = sum(record["users"][part] for record in built)
        counts[f"{part}_pairs"] = sum(record["pairs"][part] for record in built)
    dropped = drops([*cleaned, *built])
    if counts["rows_in"] != counts["events"] + sum(dropped.values()):
        raise AssertionError(f"rows were lost: {counts['rows_in']} in, {counts['events']} kept, {dropped} dropped")
    if not counts["train_pairs"]:
        raise InputError(
            f"logs: {counts['rows_in']} rows leave no training pairs (dropped: {dropped}): see pairs.min_user_events,"
            f" pairs.min_history and the column mapping"
        )
    return counts, dropped


def drops(records: Sequence[Record]) -> dict[str, int]:
    """Sum the drops of all tasks by reason."""
    total: dict[str, int] = {}
    for record in records:
        for reason, rows in record["dropped"].items():
            total[reason] = total.get(reason, 0) + rows
    return total


@functools.lru_cache(maxsize=4)
def _ids(store: Store, path: str, column: str) -> IdMap:
    """An id map read once a process; the files it reads never change."""
    return IdMap(whole(tables.read(store, path, [column])[column]))


@functools.lru_cache(maxsize=2)
def _in_core(store: Store, rounds: int) -> npt.NDArray[np.bool_]:
    return core_tasks.read(store, rounds)


def _fragment_task(number: int) -> str:
    return f"fragment-{number:06d}"


def _bucket_task(bucket: int) -> str:
    return f"bucket-{bucket:06d}"


def to_cuts(config: Config, records: Sequence[Record]) -> splits.Cuts:
    """Where validation and test begin, for a split by time; for a split by column, whether it names validation."""
    if not isinstance(config.pairs.split, TimeSplit):
        return splits.Cuts(val_is_named=any(record["val_is_named"] for record in records))
    sketches = [(int(record["events"]), list(record["times"])) for record in records]
    return splits.cut_times(sketches, config.pairs.split.val_share, config.pairs.split.test_share)
