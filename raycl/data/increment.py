"""A log that has grown: which users a run must build anew, and the rest taken over from the version before.

A user's sequence follows from the user's own events, from which items pairs may hold, and from the config. So of a
version of the same config whose items have kept their rows, users stay as they are who have no event in what was added
or removed, nor of an item that pairs may hold now and could not before, or the other way round.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.config import PairRules, TimeSplit
from raycl.data import sequences
from raycl.data.columns import whole
from raycl.data.id_map import IdMap
from raycl.data.packed import Sequences
from raycl.data.sequences import Built
from raycl.data.splits import Cuts
from raycl.errors import CorruptRelease
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Version

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a fragment's events lie, in buckets of users, and its items' counts, in parts of the vocabulary."""

    store: Store
    events: str
    counts: str

    def bucket(self, bucket: int) -> pa.Table:
        """The events of one bucket."""
        return tables.read_bucket(self.store, self.events, bucket)


@dataclass(frozen=True)
class Increment:
    """The version that a run goes on from, and what of the events only one of the two is made of."""

    version: Version
    changed: tuple[Place, ...]


def reason_against(before: Version, rules: PairRules, cuts: Cuts, num_buckets: int, *, has_core: bool) -> str:
    """Why no user of a version of this config can be taken over; empty where they can."""
    facts = before.manifest.facts
    if has_core:
        return "pairs.core_rounds looks at all users at once"
    if isinstance(rules.split, TimeSplit) and rules.keep_user_events:
        return "the cuts in time have moved, and pairs.keep_user_events counts from them"
    if len(facts["pairs_by_file"]["train"]) != num_buckets:
        return "the log has outgrown the version's buckets"
    if facts["val_is_named"] != cuts.val_is_named:
        return "the log names validation, or names it no more"
    return ""


def touched(events: pa.Table, changed: Sequence[pa.Table], flipped: Any) -> Any:
    """Distinct users with an event among the ``changed`` or of a ``flipped`` item."""
    users = [whole(table["user"]) for table in changed]
    if len(flipped):
        users.append(whole(events["user"].filter(pc.is_in(events["item"], value_set=flipped))))
    return pc.unique(pa.concat_arrays(users)) if users else whole(events["user"])[:0]


def read(version: Version, bucket: int) -> tuple[pa.Table, pa.Table] | None:
    """The sequences of a bucket, and what was dropped of its users' events; None where a file was altered."""
    paths = schema.sequences_file(bucket), schema.dropped_file(bucket)
    try:
        store = version.verified(*paths).store
    except CorruptRelease as error:
        log.warning("bucket %d is built whole: %s", bucket, error)
        return None
    return tables.read(store, paths[0]), tables.read(store, paths[1])


def merged(
    before: tuple[pa.Table, pa.Table], anew: Built, changed: Any, users: IdMap | None, rules: PairRules, cuts: Cuts
) -> Built:
    """The sequences of a bucket: of users who are not ``changed`` as they were ``before``, of the others ``anew``."""
    old, dropped = (table.filter(pc.invert(pc.is_in(table["user"], value_set=changed))) for table in before)
    old = _rebound(old, rules, cuts)
    if users is not None:
        place = old.schema.get_field_index("user_row")
        old = old.set_column(place, "user_row", pa.array(users.rows(old["user"])))
    table = pa.concat_tables([old.cast(anew.table.schema), anew.table])
    table = table.take(pc.sort_indices(table["user"])).combine_chunks()
    types = whole(table["events"]).flatten() if "events" in table.column_names else None
    num_events = len(whole(table["items"]).flatten())
    codes = np.zeros(num_events, dtype=np.uint8) if types is None else types.to_numpy(zero_copy_only=False)
    return sequences.describe(table, codes, pa.concat_tables([dropped.cast(anew.dropped.schema), anew.dropped]), rules)


def _rebound(table: pa.Table, rules: PairRules, cuts: Cuts) -> pa.Table:
    """The bounds of a split by time, whose cuts move as the log grows; those of other splits stay."""
    if not isinstance(rules.split, TimeSplit):
        return table
    packed = Sequences.from_table(table)
    moments = {"val_from": cuts.val_from_ms, "test_from": cuts.test_from_ms}
    for name, moment in moments.items():
        earlier = np.append(0, np.cumsum(packed.times_ms < moment))
        bounds: npt.NDArray[np.int64] = earlier[packed.offsets[1:]] - earlier[packed.offsets[:-1]]
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(bounds.astype(np.int32)))
    return table
