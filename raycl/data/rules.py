"""The cleaning rules on sorted events: each says which events it means, by index arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl import schema
from raycl.config import PairRules, UserRate

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass
class Events:
    """Events sorted by user, then time; ties in time by item, event type and the rest, so input order never matters."""

    user: Ints
    item: npt.NDArray[np.int32]
    time_ms: Ints
    weight: npt.NDArray[np.float32] | None
    """None where the weights are those of the event types."""
    event: npt.NDArray[np.uint8]
    split: npt.NDArray[np.int8]
    row: Ints | None = None
    """Where each stands in the table that it is from, to find its context by; None where events have none."""

    def take(self, rows: Ints | Flags) -> Events:
        """The events at these places, or where a flag is set."""
        weight = None if self.weight is None else self.weight[rows]
        user, item, time_ms = self.user[rows], self.item[rows], self.time_ms[rows]
        row = None if self.row is None else self.row[rows]
        return Events(user, item, time_ms, weight, self.event[rows], self.split[rows], row)

    def __len__(self) -> int:
        return len(self.user)


@dataclass
class Dropped:
    """Whose events were left out, by reason."""

    users: dict[str, list[Ints]] = field(default_factory=dict)
    """Of each reason, the user of every such event."""

    def by_user(self, ids: Any) -> pa.Table:
        """``user`` (raw ids, of which ``ids`` are those that events number), ``reason`` and the number of ``rows``."""
        users, rows, reasons = [], [], []
        for reason, found in self.users.items():
            numbers, counts = np.unique(np.concatenate(found), return_counts=True)
            users.append(numbers)
            rows.append(counts)
            reasons += [reason] * len(numbers)
        chosen = np.concatenate(users) if users else np.zeros(0, dtype=np.int64)
        counted = np.concatenate(rows) if rows else chosen
        return pa.table(
            {"user": ids.take(pa.array(chosen)), "reason": pa.array(reasons, pa.string()), "rows": pa.array(counted)}
        )


def drop(events: Events, kept: Flags, reason: str, dropped: Dropped) -> Events:
    """The events that are ``kept``; those that are not are added to ``dropped`` under the reason."""
    if kept.all():
        return events
    dropped.users.setdefault(reason, []).append(events.user[~kept])
    return events.take(kept)


def negatives(
    event: npt.NDArray[np.uint8], weight: npt.NDArray[np.float32] | None, chosen: PairRules, num_types: int
) -> Flags:
    """Whether an event is an explicit negative: of a type after the first ``num_types``, or of too little weight.

    Only for rules that have negatives; ``negative_below`` needs the weights.
    """
    found = event >= num_types
    if chosen.negative_below is not None:
        assert weight is not None  # the config asks for a column of them
        found |= weight < chosen.negative_below
    return found


def user_sizes(events: Events) -> Ints:
    """For each event, how many events its user has."""
    return np.bincount(events.user)[events.user] if len(events) else np.zeros(0, dtype=np.int64)


def duplicates(events: Events) -> Flags:
    """Whether an event equals the one before it in user, time, item and type."""
    repeated = np.zeros(len(events), dtype=np.bool_)
    columns = (events.user, events.time_ms, events.item, events.event)
    repeated[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return repeated


def repeats(events: Events, window_s: int) -> Flags:
    """Whether the same user, item and event type was kept less than ``window_s`` before.

    A kept event silences its repeats for the window and no longer: the first one after it is kept again, however short
    the time since the last repeat. Of events with no other of their kind within the window nothing more is looked at;
    in the rest, the next event that the window of each one lets through is a link, and the kept are what the links
    reach from the first of a kind, found by doubling in a logarithmic number of steps.
    """
    repeated = np.zeros(len(events), dtype=np.bool_)
    window_ms = 1000 * window_s
    order, opens = _by_kind(events)
    since = np.diff(events.time_ms[order], prepend=0)
    free = opens | (since >= window_ms)  # kept, whatever became of those before
    crowded = ~(free & np.append(free[1:], True))
    if not crowded.any():
        return repeated
    places, run_opens = order[crowded], free[crowded]
    follows = _first_after_window(events.time_ms[places], run_opens, window_ms)
    kept, num_kept = np.append(run_opens, False), 0
    while num_kept < kept.sum():
        num_kept = int(kept.sum())
        kept[follows[kept]] = True
        kept[-1] = False  # the end of every chain, and no event
        follows = follows[follows]
    repeated[places[~kept[:-1]]] = True
    return repeated


def _by_kind(events: Events) -> tuple[Ints, Flags]:
    """Places in the order of user, item, event type and time; and of each in that order, whether it opens a kind."""
    num_items, num_types = int(events.item.max(initial=0)) + 1, int(events.event.max(initial=0)) + 1
    if (int(events.user.max(initial=0)) + 1) * num_items * num_types < 2**63:
        kind = (events.user * num_items + events.item) * num_types + events.event
        order = np.argsort(kind, kind="stable")
        return order, np.diff(kind[order], prepend=-1) != 0
    order = np.lexsort((events.event, events.item, events.user))
    columns = (events.user[order], events.item[order], events.event[order])
    return order, np.logical_or.reduce([np.diff(column.astype(np.int64), prepend=-1) != 0 for column in columns])


def _first_after_window(time_ms: Ints, opens: Flags, window_ms: int) -> Ints:
    """Of each place, the first of its run at or after the end of its window; ``len(time_ms)`` where the run ends.

    The result has one more place, which leads to itself.
    """
    num_places = len(time_ms)
    run = np.cumsum(opens) - 1
    moments = np.unique(time_ms)
    ranks, targets = np.searchsorted(moments, time_ms), np.searchsorted(moments, time_ms + window_ms)
    found = np.searchsorted(run * (len(moments) + 1) + ranks, run * (len(moments) + 1) + targets)
    ends = np.append(np.flatnonzero(opens)[1:], num_places)[run]
    return np.append(np.where(found < ends, found, num_places), num_places)


def faster_than(events: Events, rate: UserRate) -> Flags:
    """Whether the event's user has more than ``rate.events`` events in some ``rate.window_s`` seconds.

    A window holds its first moment and not its last.
    """
    later, earlier = slice(rate.events, None), slice(None, max(len(events) - rate.events, 0))
    together = (events.user[later] == events.user[earlier]) & (
        events.time_ms[later] - events.time_ms[earlier] < 1000 * rate.window_s
    )
    fast = np.zeros(int(events.user.max(initial=-1)) + 1, dtype=np.bool_)
    fast[events.user[later][together]] = True
    return np.asarray(fast[events.user])


def after_held_out(events: Events) -> Flags:
    """Whether an event's user has an event of a later part at an earlier moment."""
    rank = events.user * len(schema.SPLITS) + events.split
    opens = (np.diff(events.user, prepend=-1) != 0) | (np.diff(events.time_ms, prepend=0) != 0)
    moment = np.maximum.accumulate(np.where(opens, np.arange(len(events)), 0))
    highest = np.append(-1, np.maximum.accumulate(rank))  # of all events so far; earlier users are lower than this one
    return np.asarray(highest[moment] > rank)


def over_cap(events: Events, cuttable: Flags, most: int) -> Flags:
    """Whether more than ``most`` ``cuttable`` events of the user come at the event or after it; never one that is not.

    Of equal times, the one that sorts last is the newest.
    """
    over = np.zeros(len(events), dtype=np.bool_)
    places = np.flatnonzero(cuttable)
    users = events.user[places]
    ends = np.cumsum(np.bincount(users)) if len(users) else users
    over[places] = ends[users] - np.arange(len(users)) > most
    return over
