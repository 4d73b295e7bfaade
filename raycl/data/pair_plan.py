"""What every task of the pairs stage needs to know, decided once and kept for a run that goes on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import pyarrow as pa

from raycl.config import Config
from raycl.data import catalogue_tasks, kept_events, vocabulary_tasks
from raycl.data.columns import whole
from raycl.data.id_map import IdMap
from raycl.data.increment import Place
from raycl.data.kept_events import Kept
from raycl.data.sources import Inputs
from raycl.data.times import DAY_MS
from raycl.data.vocabulary_tasks import Items, Known, Numbering
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft, Record

_MOST_ROWS, _LEAST_ROWS, _FEW_BUCKETS = 2_000_000, 25_000, 16


@dataclass(frozen=True)
class Plan:
    """What every task needs to know."""

    draft: Draft
    config: Config
    user_type: pa.DataType
    item_type: pa.DataType
    latest_ms: int
    num_buckets: int
    num_parts: int
    """Parts of the vocabulary."""
    known: Known | None = None
    """The vocabulary that this one goes on from."""
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """Rows of the item and user tables that were left out, by reason."""

    afresh: bool = False
    """Whether nothing that earlier runs made is taken over, but for the rows of items."""
    kept: Kept | None = None
    """Events that the workspace keeps."""
    context: Mapping[str, pa.DataType] = field(default_factory=dict)
    """Type of each column that events carry along."""

    def place(self, number: int, record: Record) -> Place:
        """Where the events of a fragment lie, whose task left this record."""
        if self.kept is not None:
            return Place(self.kept.folder(record["kept"]), kept_events.EVENTS, kept_events.COUNTS)
        task = fragment_task(number)
        return Place(self.draft.store, f"{WORK}/events/{task}.arrow", f"{WORK}/counts/{task}.arrow")

    def items(self, numbering: Numbering) -> Items:
        """Which row an item has in the second pass."""
        return Items(self.draft.store, numbering, self.least_item_events)

    @property
    def now_ms(self) -> int:
        """When the run began."""
        return self.latest_ms - DAY_MS

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
    def num_types(self) -> int:
        """Event types that are no explicit negatives."""
        return len(self.type_weights)

    @property
    def has_weights(self) -> bool:
        """Whether an event's weight is more than that of its type."""
        logs = [log.columns for log in self.config.logs]
        mixed = self.type_weights != (1.0,) and any(columns.event is None for columns in logs)
        return mixed or any(columns.weight for columns in logs)


def begin(
    draft: Draft,
    workspace: Store,
    config: Config,
    inputs: Inputs,
    now_ms: int,
    known: Known | None = None,
    *,
    afresh: bool = False,
) -> Plan:
    """Write what the item and user tables hold, and decide what all tasks share; a resumed draft keeps what it had.

    A time is believed up to a day after ``now_ms``; items of ``known`` keep their rows. ``afresh`` takes over no events
    and no sequences.
    """
    setup = draft.task_done("setup")
    if setup is None:
        num_rows = sum(log.num_rows for log in inputs.logs)
        setup = {
            "set_aside": catalogue_tasks.write(draft.store, config, inputs, known),
            "latest_ms": now_ms + DAY_MS,
            "num_parts": vocabulary_tasks.num_parts(num_rows, known, has_catalogue=config.items is not None),
            "known": asdict(known) if known else None,
            "afresh": afresh,
            "num_buckets": config.pairs.num_buckets or _buckets(num_rows, known if config.pairs.incremental else None),
        }
        draft.finish_task("setup", setup)
    resumed = Known(**setup["known"]) if setup["known"] else None
    types = inputs.user_type, inputs.item_type
    shared = setup | {"known": resumed, "context": inputs.context}
    plan = Plan(draft, config, *types, **shared)
    if config.pairs.incremental:
        kinds = [str(kind) for kind in (*types, *inputs.context.values())]
        cut = kept_events.cut(config, plan.num_buckets, plan.num_parts, plan.has_weights, kinds)
        return replace(plan, kept=Kept.under(workspace, cut))
    return plan


def _buckets(num_rows: int, known: Known | None) -> int:
    """Those of the version that this one goes on from, until they hold twice what they should."""
    wanted = derived_buckets(num_rows)
    return known.num_buckets if known and known.num_buckets <= wanted <= 2 * known.num_buckets else wanted


def derived_buckets(num_rows: int) -> int:
    """Buckets of about 2 million rows or fewer: 16 at least, and for small logs one for every 25,000 rows."""
    return max(-(-num_rows // _MOST_ROWS), min(_FEW_BUCKETS, -(-num_rows // _LEAST_ROWS)))


def fragment_task(number: int) -> str:
    """The name of the task that cleans a fragment."""
    return f"fragment-{number:06d}"


@functools.lru_cache(maxsize=4)
def ids(store: Store, path: str, column: str) -> IdMap:
    """An id map read once a process; the files it reads never change."""
    return IdMap(whole(tables.read(store, path, [column])[column]))
