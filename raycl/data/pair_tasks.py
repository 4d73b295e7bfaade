"""The two passes of the pairs stage, one task at a time: read, call the pure core, write, and leave a record.

A task's files have names of their own and its record comes last, so a task that is killed or run twice does no harm.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl import lineage, schema
from raycl.config import ColumnSplit, Config, TimeSplit
from raycl.data import clean, core_tasks, features, leakage, report_tasks, sequences, splits, vocabulary
from raycl.data.columns import whole
from raycl.data.hashing import bucket_of
from raycl.data.id_map import IdMap
from raycl.data.packed import has_targets
from raycl.data.rules import Events
from raycl.data.sources import Fragment, Inputs, log_columns
from raycl.errors import InputError
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft, Version

Record = Mapping[str, Any]
"""What a finished task says of itself."""

_COUNTS = f"{WORK}/counts"
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
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """Rows of the item and user tables that were left out, by reason."""
    context: Mapping[str, pa.DataType] = field(default_factory=dict)
    """Type of each column that events carry along."""

    @property
    def type_weights(self) -> tuple[float, ...]:
        """Weights of the event types by their codes; without types every event is of code 0 and weight 1."""
        has_types = any(log.columns.event for log in self.config.logs)
        return tuple(self.config.event_weights.values()) if has_types else (1.0,)

    @property
    def num_types(self) -> int:
        """Event types that are no explicit negatives."""
        return len(self.type_weights)

    @property
    def has_weights(self) -> bool:
        """Whether an event's weight is more than that of its type."""
        logs = [log.columns for log in self.config.logs]
        mixed = self.type_weights != (1.0,) and any(columns.event is None for columns in logs)
        return mixed or any(columns.weight for columns in logs)


def begin(draft: Draft, config: Config, inputs: Inputs, num_fragments: int, now_ms: int) -> Plan:
    """Write what the item and user tables hold, and decide what all tasks share; a resumed draft keeps what it had.

    A time is believed up to a day after ``now_ms``.
    """
    setup = draft.task_done("setup")
    if setup is None:
        num_rows = sum(log.num_rows for log in inputs.logs)
        setup = {
            "set_aside": write_catalogue(draft.store, config, inputs),
            "latest_ms": now_ms + _DAY_MS,
            "num_buckets": config.pairs.num_buckets or derived_buckets(num_rows),
        }
        draft.finish_task("setup", setup)
    types = inputs.user_type, inputs.item_type
    return Plan(draft, config, *types, num_fragments=num_fragments, context=inputs.context, **setup)


def derived_buckets(num_rows: int) -> int:
    """Buckets of about 2 million rows or fewer: 16 at least, and for small logs one for every 25,000 rows."""
    return max(-(-num_rows // _MOST_ROWS), min(_FEW_BUCKETS, -(-num_rows // _LEAST_ROWS)))


def write_catalogue(store: Store, config: Config, inputs: Inputs) -> dict[str, int]:
    """Write what the item and user tables hold, encoded, and the ids that they know; return what was set aside."""
    counts: dict[str, int] = {}
    fitted = {"items": features.Encoders(), "users": features.Encoders()}
    if config.items and inputs.items:
        table = _distinct(
            inputs.items.read(_item_columns(config)), config.items.id_column, inputs.item_type, "items", counts
        )
        if not table.num_rows:
            raise InputError(f"items.uri={config.items.uri} holds no item with an id: check items.id_column")
        fitted["items"] = features.Encoders.fit(config.items.features, table)
        shown = {"item": table[config.items.id_column]}
        if config.items.title_column:
            shown["title"] = table[config.items.title_column].cast(pa.large_string())
        shown |= {name: table[name] for name in config.items.display}
        tables.write(store, schema.CATALOGUE_FILE, pa.table(shown))
        tables.write(store, schema.ITEM_FEATURES_FILE, fitted["items"].encode(table))
    if config.users and inputs.users:
        wanted = [config.users.id_column, *(feature.column for feature in config.users.features)]
        table = _distinct(inputs.users.read(wanted), config.users.id_column, inputs.user_type, "users", counts)
        fitted["users"] = features.Encoders.fit(config.users.features, table)
        known = {"user": table[config.users.id_column]}
        if config.users.features:
            known["features"] = fitted["users"].plain(table)
        tables.write(store, schema.USERS_FILE, pa.table(known))
        tables.write(store, schema.USER_FEATURES_FILE, fitted["users"].encode(table))
    plain = {kind: encoders.to_json() for kind, encoders in fitted.items()}
    store.write(schema.FEATURES_FILE, json.dumps(plain).encode())
    return counts


def clean_fragment(plan: Plan, number: int, fragment: Fragment) -> dict[str, Any]:
    """First pass: clean one fragment, and write its events with the rows of each bucket together."""
    task = f"fragment-{number:06d}"
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
        _ids(store, schema.CATALOGUE_FILE, "item") if plan.config.items else None,
        with_weights=plan.has_weights,
        with_splits=isinstance(plan.config.pairs.split, ColumnSplit),
        negative_events=plan.config.pairs.negative_events,
        context=plan.context,
    )
    rows = fragment.read(log_columns(log))
    outside = cleaner.outside(rows)
    events, bad = cleaner.clean(rows, fragment.first_row, outside)
    if bad.num_rows:
        origin = pa.array([f"{fragment.root_uri}/{fragment.path}"] * bad.num_rows)
        tables.write(store, f"quarantine/part-{number:06d}.parquet", bad.append_column("file", origin))
    positive = clean.positive(events, plan.config.pairs, plan.num_types)
    tables.write(store, f"{_COUNTS}/{task}.parquet", vocabulary.count_ids(positive["item"]))
    buckets = bucket_of(events["user"], plan.num_buckets)
    tables.write_buckets(store, f"{WORK}/events/{task}.arrow", events, buckets, plan.num_buckets)
    by_time = isinstance(plan.config.pairs.split, TimeSplit)
    record = {
        "rows": fragment.num_rows,
        "events": positive.num_rows,
        "dropped": clean.count_reasons(bad) | clean.count_outside(outside),
        "times": splits.quantiles(positive["time_ms"].to_numpy()) if by_time else [],
        "val_is_named": cleaner.with_splits and bool(np.any(positive["split"].to_numpy() == splits.VAL)),
        "report": report_tasks.of_fragment(cleaner, events, bad),
    }
    plan.draft.finish_task(task, record)
    return record


def write_vocabulary(plan: Plan) -> None:
    """Between the passes: every item that may be retrieved, with its events in the log."""
    store = plan.draft.store
    counted = vocabulary.merge_counts(
        tables.read(store, f"{_COUNTS}/fragment-{number:06d}.parquet") for number in range(plan.num_fragments)
    )
    if plan.config.items:
        items = _ids(store, schema.CATALOGUE_FILE, "item")
        counts = np.zeros(len(items), dtype=np.int64)
        counts[items.rows(counted["item"])] = counted["count"].to_numpy()
        ids = items.ids
    else:
        counted = counted.filter(pa.array(counted["count"].to_numpy() >= plan.config.pairs.min_item_events))
        ids, counts = counted["item"], counted["count"].to_numpy()
    tables.write(store, f"{WORK}/items.parquet", pa.table({"item": ids, "log_count": counts}))


def find_core(plan: Plan, map_tasks: core_tasks.MapTasks) -> core_tasks.Core | None:
    """Between the passes, where ``pairs.core_rounds`` asks for it: which items are left once everything rare is out."""
    rules, store = plan.config.pairs, plan.draft.store
    if not rules.core_rounds:
        return None

    def cleaned(bucket: int) -> Events:
        items = _ids(store, f"{WORK}/items.parquet", "item")
        events = _read_bucket(plan, bucket)
        return sequences.clean(events, items, rules, _log_counts(store), plan.config.seed, plan.num_types).events

    num_items = tables.read(store, f"{WORK}/items.parquet", ["log_count"]).num_rows
    rounds = core_tasks.Rounds(
        plan.draft, plan.num_buckets, num_items, rules.min_item_events, rules.min_user_events, rules.core_rounds
    )
    return rounds.run(cleaned, map_tasks)


def build_bucket(plan: Plan, bucket: int, cuts: splits.Cuts, core: core_tasks.Core | None = None) -> dict[str, Any]:
    """Second pass: all events of the bucket's users through the kernel, to one file.

    RayclError where a part knows what it must not.
    """
    task = f"bucket-{bucket:06d}"
    if (record := plan.draft.task_done(task)) is not None:
        return record
    store, rules, seed = plan.draft.store, plan.config.pairs, plan.config.seed
    items = _ids(store, f"{WORK}/items.parquet", "item")
    described = plan.config.users and plan.config.users.features  # a table without features has no rows to point at
    users = _ids(store, schema.USERS_FILE, "user") if described else None
    built = sequences.build(
        _read_bucket(plan, bucket),
        items,
        users,
        rules,
        cuts,
        _log_counts(store),
        seed=seed,
        in_core=_in_core(store, core.rounds) if core else None,
        type_weights=plan.type_weights,
        num_types=plan.num_types,
    )
    written = leakage.Written(built.packed, whole(built.table["user"]), built.event_types, built.negatives)
    leaks = leakage.find(written, rules, cuts, seed, lambda rows: items.ids.take(pa.array(rows)))
    leakage.require_none(leaks, bucket)
    tables.write(store, schema.sequences_file(bucket), built.table)
    seen = np.flatnonzero(built.train_counts)  # a target is an event, so this holds all items that are one
    counted = {"item": seen, "train_count": built.train_counts[seen], "train_targets": built.train_targets[seen]}
    tables.write(store, f"{_COUNTS}/{task}.parquet", pa.table(counted))
    record = {
        "events": built.num_events,
        "users": {part: int(has_targets(built.table, part).sum()) for part in schema.SPLITS},
        "dropped": built.dropped,
        "pairs": built.num_pairs,
        "report": report_tasks.of_bucket(store, bucket, built, plan.config),
    }
    if built.packed.negatives is not None:
        record["negatives"] = len(built.packed.negatives.items)
    plan.draft.finish_task(task, record)
    return record


def _read_bucket(plan: Plan, bucket: int) -> pa.Table:
    """All cleaned events of the bucket's users."""
    return pa.concat_tables(
        tables.read_bucket(plan.draft.store, f"{WORK}/events/fragment-{number:06d}.arrow", bucket)
        for number in range(plan.num_fragments)
    )


def finish(
    plan: Plan,
    inputs: Inputs,
    cuts: splits.Cuts,
    cleaned: Sequence[Record],
    built: Sequence[Record],
    core: core_tasks.Core | None = None,
    before: Version | None = None,
) -> Version:
    """After the second pass: the vocabulary, the last checks, the report, and the commit.

    ``before`` is the version that the report compares this one with.

    Raises InputError where the log leaves no training pairs.
    """
    num_items = _write_train_counts(plan)
    counts, dropped = add_up(cleaned, built)
    report_tasks.write(plan.draft, plan.config, counts, dropped, cleaned, built, before)
    return plan.draft.commit(
        inputs={table.field: table.root_uri for table in inputs.tables},
        config=lineage.part(plan.config, "pairs"),
        counts=counts | {"items": num_items} | dict(plan.set_aside),
        dropped=dropped,
        facts={
            **asdict(cuts),
            **({"core": asdict(core)} if core else {}),
            **({"context": list(plan.context)} if plan.context else {}),
            "pairs_by_file": {part: [record["pairs"][part] for record in built] for part in schema.SPLITS},
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


def _write_train_counts(plan: Plan) -> int:
    """Write the vocabulary with what training holds of each item; returns how many items there are."""
    store = plan.draft.store
    table = tables.read(store, f"{WORK}/items.parquet")
    parts = (tables.read(store, f"{_COUNTS}/bucket-{bucket:06d}.parquet") for bucket in range(plan.num_buckets))
    totals = vocabulary.sum_by_row(parts, ["train_count", "train_targets"], table.num_rows)
    for name, total in totals.items():
        table = table.append_column(name, pa.array(total))
    tables.write(store, schema.ITEMS_FILE, table.cast(schema.vocabulary(plan.item_type)))
    return int(table.num_rows)


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


def _item_columns(config: Config) -> list[str]:
    assert config.items is not None
    title = [config.items.title_column] if config.items.title_column else []
    named = [
        config.items.id_column,
        *title,
        *(feature.column for feature in config.items.features),
        *config.items.display,
    ]
    return list(dict.fromkeys(named))


def _distinct(table: pa.Table, column: str, wanted: pa.DataType, kind: str, counts: dict[str, int]) -> pa.Table:
    """One row an id; rows without id and repeated ids are counted under the table's name."""
    chosen, missing, repeated = vocabulary.first_of_each(table, column, wanted)
    counts |= {f"{kind}_without_id": missing, f"{kind}_repeated": repeated}
    return chosen


@functools.lru_cache(maxsize=4)
def _ids(store: Store, path: str, column: str) -> IdMap:
    """An id map read once a process; the files it reads never change."""
    return IdMap(whole(tables.read(store, path, [column])[column]))


@functools.lru_cache(maxsize=2)
def _in_core(store: Store, rounds: int) -> npt.NDArray[np.bool_]:
    return core_tasks.read(store, rounds)


@functools.lru_cache(maxsize=2)
def _log_counts(store: Store) -> npt.NDArray[np.int64]:
    return np.asarray(tables.read(store, f"{WORK}/items.parquet")["log_count"].to_numpy())


def to_cuts(config: Config, records: Sequence[Record]) -> splits.Cuts:
    """Where validation and test begin, for a split by time; for a split by column, whether it names validation."""
    if not isinstance(config.pairs.split, TimeSplit):
        return splits.Cuts(val_is_named=any(record["val_is_named"] for record in records))
    sketches = [(int(record["events"]), list(record["times"])) for record in records]
    return splits.cut_times(sketches, config.pairs.split.val_share, config.pairs.split.test_share)
