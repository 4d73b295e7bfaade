"""The first pass of the pairs stage, one fragment of the log at a time: read, clean, and write events by bucket."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raycl.config import ColumnSplit, TimeSplit
from raycl.data import clean, kept_events, report_sketch, splits, vocabulary_tasks
from raycl.data.column_types import plain
from raycl.data.hashing import bucket_of
from raycl.data.increment import Place
from raycl.data.kept_events import How
from raycl.data.pair_plan import Plan, fragment_task, ids
from raycl.data.sources import Fragment, log_columns
from raycl.storage import tables
from raycl.storage.versions import Record


def clean_fragment(plan: Plan, number: int, fragment: Fragment) -> Record:
    """First pass: clean one fragment, and write its events with the rows of each bucket together.

    Events of a fragment that the workspace keeps as this run would make them are left where they are. The record is for
    ``Draft.settle``.
    """
    task = fragment_task(number)
    done = plan.draft.task_done(task)
    if done is not None and (plan.kept is None or plan.kept.has(done["kept"])):
        return done
    files = []
    cleaner = _cleaner(plan, fragment)
    quarantine = f"quarantine/part-{number:06d}.parquet"
    if plan.kept is None:
        place = plan.place(number, {})
        record, bad = _clean(plan, cleaner, fragment, place)
        files = [place.events, place.counts]
    else:
        how = How.of(plan.config.logs[fragment.log], plan.latest_ms, cleaner.known_items)
        found = None if plan.afresh else plan.kept.find(fragment, cleaner.log, how, cleaner.known_items)
        if found is None:
            name = plan.kept.name_of(fragment, how)
            plan.kept.use(name, plan.now_ms)
            record, bad = _clean(plan, cleaner, fragment, plan.place(number, {"kept": name}))
            tables.write(plan.kept.folder(name), kept_events.BAD, bad)
            plan.kept.finish(name, how, record, cleaner.first_beyond(bad))
        else:
            name, record = found
            plan.kept.use(name, plan.now_ms)
            bad = tables.read(plan.kept.folder(name), kept_events.BAD)
        record = {**record, "kept": name}
    if bad.num_rows:
        origin = pa.array([f"{fragment.root_uri}/{fragment.path}"] * bad.num_rows)
        tables.write(plan.draft.store, quarantine, bad.append_column("file", origin), durable=False)
        files.append(quarantine)
    return {**record, "files": files}


def _cleaner(plan: Plan, fragment: Fragment) -> clean.Cleaner:
    config = plan.config
    log, by_column = config.logs[fragment.log], isinstance(config.pairs.split, ColumnSplit)
    if not by_column:
        log = log.model_copy(update={"columns": log.columns.model_copy(update={"split": None})})
    return clean.Cleaner(
        log,
        config.event_weights,
        plan.latest_ms,
        plan.user_type,
        plan.item_type,
        ids(plan.draft.store, vocabulary_tasks.CATALOGUE_IDS, "item") if config.items else None,
        with_weights=plan.has_weights,
        with_splits=by_column,
        negative_events=config.pairs.negative_events,
        context=plan.context,
    )


def _clean(plan: Plan, cleaner: clean.Cleaner, fragment: Fragment, place: Place) -> tuple[Record, pa.Table]:
    """Write the fragment's events; the record of it, and the rows that were set aside."""
    rows = fragment.read(log_columns(cleaner.log), cleaner.log.columns.words)
    outside = cleaner.outside(rows)
    events, bad = cleaner.clean(rows, fragment.first_row, outside)
    bad = plain(bad)
    durable, buckets = plan.kept is not None, bucket_of(events["user"], plan.num_buckets)
    positive = clean.positive(events, plan.config.pairs, plan.num_types)
    items = events["item"], positive["item"]
    vocabulary_tasks.write_counts(place.store, place.counts, *items, plan.num_parts, durable=durable)
    tables.write_buckets(place.store, place.events, events, buckets, plan.num_buckets, durable=durable)
    by_time = plan.kept is not None or isinstance(plan.config.pairs.split, TimeSplit)  # kept ones are for any split
    record = {
        "rows": fragment.num_rows,
        "events": positive.num_rows,
        "dropped": clean.count_reasons(bad) | clean.count_outside(outside),
        "times": splits.quantiles(positive["time_ms"].to_numpy()) if by_time else [],
        "val_is_named": cleaner.with_splits and bool(np.any(positive["split"].to_numpy() == splits.VAL)),
        "report": report_sketch.Rows.of(cleaner, events, bad).to_json(),
    }
    return record, bad
