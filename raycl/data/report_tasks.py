"""The data report on storage: what a task leaves for it, and the two files beside the manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raycl import lineage, schema
from raycl.config import Config
from raycl.data import report, report_drift, report_page, report_sketch
from raycl.data.report import Drift, Report
from raycl.data.report_items import ItemCounts, ItemDrift
from raycl.data.vocabulary_tasks import read_part
from raycl.errors import RayclError
from raycl.storage.store import Store
from raycl.storage.versions import Draft, Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Before:
    """The version that a report compares its own with, and its report, where this raycl can read it."""

    name: str
    uri: str
    config: Mapping[str, Any]
    num_parts: int
    report: Report | None

    def part(self, number: int, num_parts: int) -> pa.Table:
        """What it has of the items in one of ``num_parts`` parts of the vocabulary."""
        return read_part(Store(self.uri), self.num_parts, number, num_parts)


def previous(workspace: Workspace, digest: str, *besides: str) -> Before | None:
    """The newest finished pairs of other work, ``besides`` those of these names.

    The same work made twice has nothing to tell apart.
    """
    others = (one for one in workspace.readable("pairs") if one.name not in besides)
    made = next((one for one in others if one.manifest.fingerprint != digest), None)
    if made is None:
        return None
    try:
        found = Report.model_validate_json(made.store.read(schema.REPORT_FILE))
        num_parts = int(made.manifest.facts["vocabulary"]["parts"])
    except (RayclError, OSError, ValueError, LookupError) as error:
        log.warning(
            "the data report is not compared: %s has none to read (%s)", made.name, str(error).partition("\n")[0]
        )
        return Before(made.name, made.store.uri, made.manifest.config, 0, None)
    return Before(made.name, made.store.uri, made.manifest.config, num_parts, found)


def of_items(
    part: int, num_parts: int, total: int, table: pa.Table, held_out: Mapping[str, Any], before: Before | None
) -> dict[str, Any]:
    """What the record of a counting task says of its part of a vocabulary with ``total`` events."""
    drift = ItemDrift()
    if before is not None and before.report is not None:
        drift = ItemDrift.of(before.part(part, num_parts), table, before.report.items.total, total)
    return {"items": ItemCounts.of(table, held_out).to_json(), "drift": drift.to_json()}


def write(
    draft: Draft,
    config: Config,
    counts: Mapping[str, int],
    dropped: Mapping[str, int],
    cleaned: Sequence[Mapping[str, Any]],
    built: Sequence[Mapping[str, Any]],
    items: Sequence[Mapping[str, Any]],
    before: Before | None,
) -> None:
    """Write ``report.json`` and ``report.html``.

    ``counts`` and ``dropped`` are those of the manifest, ``cleaned`` and ``built`` the records of all tasks with their
    sketches as ``report``, and ``items`` what ``of_items`` said of each part of the vocabulary.
    """
    found = report.build(
        draft.fingerprint,
        config,
        counts,
        dropped,
        report_sketch.Rows.merged([report_sketch.Rows.from_json(record["report"]) for record in cleaned]),
        report_sketch.Kept.merged([report_sketch.Kept.from_json(record["report"]) for record in built]),
        ItemCounts.merged([ItemCounts.from_json(record["items"]) for record in items]),
    )
    for one in found.types.named:
        if not one.rows and found.rows:
            others = ", ".join(other.type for other in found.types.unknown[:5]) or "none"
            told = one.type, others
            log.warning("no row of the log has event type '%s'; types that the config does not name: %s", *told)
    drift = ItemDrift.merged([ItemDrift(**record["drift"]) for record in items])
    found = found.model_copy(update={"drift": _drift(found, drift, config, before)})
    draft.store.write(schema.REPORT_FILE, found.model_dump_json(indent=1).encode())
    draft.store.write(schema.REPORT_PAGE, report_page.render(found).encode())


def _drift(now: Report, items: ItemDrift, config: Config, before: Before | None) -> Drift:
    """What changed since ``before``; where that version cannot be read, the reason, which stops nothing."""
    if before is None:
        return report_drift.none("there is no finished version of other work in this workspace")
    if before.report is None:
        return report_drift.none(f"{before.name} has no report that this raycl can read")
    settings = report_drift.differing(before.config, lineage.part(config, "pairs"))
    return report_drift.compared(before.name, before.report, now, items, settings)
