"""The data report on storage: what a task leaves for it, and the two files beside the manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raycl import lineage, schema
from raycl.config import Config
from raycl.data import report, report_drift, report_page, report_sketch
from raycl.data.clean import Cleaner
from raycl.data.report import Drift, Report
from raycl.data.sequences import Built
from raycl.data.vocabulary import sum_by_row
from raycl.errors import RayclError
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft, Version, Workspace

log = logging.getLogger(__name__)

_VOCABULARY = ["item", "log_count", "train_count"]


def of_fragment(cleaner: Cleaner, events: Any, bad: Any) -> report_sketch.Sketch:
    """What the record of a cleaning task says of its rows."""
    return report_sketch.Rows.of(cleaner, events, bad).to_json()


def of_bucket(store: Store, bucket: int, built: Built, config: Config) -> report_sketch.Sketch:
    """What the record of a building task says of its events; the held-out targets of each item go to a file."""
    tables.write(store, _held_out(bucket), report_sketch.held_out_targets(built))
    return report_sketch.Kept.of(built, len(config.event_weights) + len(config.pairs.negative_events)).to_json()


def previous(workspace: Workspace, digest: str) -> Version | None:
    """The newest finished pairs of other work; the same work made twice has nothing to tell apart."""
    return next((made for made in workspace.readable("pairs") if made.manifest.fingerprint != digest), None)


def write(
    draft: Draft,
    config: Config,
    counts: Mapping[str, int],
    dropped: Mapping[str, int],
    cleaned: Sequence[Mapping[str, Any]],
    built: Sequence[Mapping[str, Any]],
    before: Version | None,
) -> None:
    """Write ``report.json`` and ``report.html``, once the vocabulary is written.

    ``counts`` and ``dropped`` are those of the manifest, ``cleaned`` and ``built`` the records of all tasks with what
    ``of_fragment`` and ``of_bucket`` said as ``report``.
    """
    vocabulary = tables.read(draft.store, schema.ITEMS_FILE, _VOCABULARY)
    found = report.build(
        draft.fingerprint,
        config,
        counts,
        dropped,
        report_sketch.Rows.merged([report_sketch.Rows.from_json(record["report"]) for record in cleaned]),
        report_sketch.Kept.merged([report_sketch.Kept.from_json(record["report"]) for record in built]),
        vocabulary,
        _held_out_counts(draft.store, len(built), vocabulary.num_rows),
    )
    found = found.model_copy(update={"drift": _drift(found, vocabulary, config, before)})
    draft.store.write(schema.REPORT_FILE, found.model_dump_json(indent=1).encode())
    draft.store.write(schema.REPORT_PAGE, report_page.render(found).encode())


def _drift(now: Report, vocabulary: Any, config: Config, before: Version | None) -> Drift:
    """What changed since ``before``; where that version cannot be read, the reason, which stops nothing."""
    if before is None:
        return report_drift.none("there is no finished version of other work in this workspace")
    try:
        older = Report.model_validate_json(before.store.read(schema.REPORT_FILE))
        items = tables.read(before.store, schema.ITEMS_FILE, _VOCABULARY)
    except (RayclError, OSError, ValueError) as error:
        reason = f"{before.name} has no report that this raycl can read"
        log.warning("the data report is not compared: %s (%s)", reason, str(error).partition("\n")[0])
        return report_drift.none(reason)
    settings = report_drift.differing(before.manifest.config, lineage.part(config, "pairs"))
    return report_drift.compared(before.name, older, now, items, vocabulary, settings)


def _held_out(bucket: int) -> str:
    return f"{WORK}/report/bucket-{bucket:06d}.parquet"


def _held_out_counts(store: Store, num_buckets: int, num_items: int) -> dict[str, npt.NDArray[np.int64]]:
    """Of ``val`` and ``test``, how often each item is a target, (num_items,)."""
    counted = (tables.read(store, _held_out(bucket)) for bucket in range(num_buckets))
    return sum_by_row(counted, schema.SPLITS[1:], num_items)
