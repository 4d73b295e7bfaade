"""Held-out users as a validation asks for them: their state, what they met, and what is to be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raycl import schema
from raycl.config import PairRules
from raycl.data import reader
from raycl.data.columns import whole
from raycl.data.hashing import hash_ids, mix
from raycl.data.packed import Flags, Ints, Rows, Sequences, has_targets, ranges
from raycl.data.reader import Limits
from raycl.data.states import States, before_targets
from raycl.storage import tables
from raycl.storage.store import Store


@dataclass(frozen=True)
class Cells:
    """Pairs of a user, by number, and an item, by vocabulary row; users ascending."""

    user: Ints
    item: Ints

    def __len__(self) -> int:
        return len(self.user)

    def take(self, kept: Flags) -> Cells:
        """The cells that are ``kept`` (cells,)."""
        return Cells(self.user[kept], self.item[kept])

    def of(self, users: slice) -> Cells:
        """The cells of a run of users, numbered within it."""
        rows = slice(*np.searchsorted(self.user, [users.start, users.stop]))
        return Cells(self.user[rows] - users.start, self.item[rows])


@dataclass(frozen=True)
class HeldOut:
    """Users with one item or more to be found."""

    state: States
    """Before the first target, with its context as the log has it"""
    met: Cells
    """What they met before: it is not retrieved."""
    wanted: Cells
    """Distinct targets that they had not met; one or more a user."""

    def __len__(self) -> int:
        return len(self.state)

    @property
    def history(self) -> Rows:
        """Rows of the vocabulary (users, max_history), newest first, then -1."""
        return self.state.history

    def take(self, users: Ints) -> HeldOut:
        """These users, ascending, numbered anew."""
        number = np.full(len(self), -1, dtype=np.int64)
        number[users] = np.arange(len(users))
        cells = []
        for found in (self.met, self.wanted):
            mine = found.take(number[found.user] >= 0)
            cells.append(Cells(number[mine.user], mine.item))
        return HeldOut(self.state.take(users), *cells)


def read(
    store: Store,
    files: Sequence[tuple[str, int]],
    rules: PairRules,
    part: str,
    most: int,
    limits: Limits | None = None,
    context: Sequence[str] = (),
) -> HeldOut:
    """At most ``most`` users of ``part``, the same ones in every process.

    ``files`` are paths of sequences and their number of pairs of the part. A file holds the users of one bucket of a
    hash, so the first files are as good a sample as any; of the users in them those with the least hashes of their ids
    are taken. Who counts is who ``raycl evaluate`` measures: a user whose history is as long as a pair needs, with a
    target that is not met yet. ``context`` are columns of the log that their states have. Raises what ``reader.read``
    does.
    """
    found: list[HeldOut] = []
    keys, carried = [], [schema.context_column(name) for name in context]
    for path, num_pairs in files:
        if num_pairs and sum(len(one) for one in found) < most:
            every = _of(reader.read(store, [path], part, carried, limits), rules, part)
            table = tables.read(store, path, ["user", "items", *schema.BOUNDS])
            ids = whole(table["user"].filter(pa.array(has_targets(table, part))))
            counting = _counting(every, rules)
            found.append(every.take(counting))
            keys.append(mix(hash_ids(ids)[counting]))  # another hash than the one that chose the file
    joined = _join(found, rules.max_history)
    if len(joined) <= most:
        return joined
    return joined.take(np.sort(np.argsort(np.concatenate(keys), kind="stable")[:most]))


def _of(sequences: Sequences, rules: PairRules, part: str) -> HeldOut:
    """Every user of ``sequences``, who all have targets in ``part``; some may have nothing to be found."""
    spans = sequences.spans(part, rules)
    met = _cells(sequences, sequences.offsets[:-1], spans.context_end)
    targets = _cells(sequences, spans.first, spans.stop)
    width = int(sequences.items.max(initial=0)) + 1
    wanted = np.setdiff1d(targets.user * width + targets.item, met.user * width + met.item)
    cells = Cells(wanted // width, wanted % width)
    return HeldOut(before_targets(sequences, rules, part), met, cells)


def _counting(every: HeldOut, rules: PairRules) -> Ints:
    """The users who are measured; the rule that makes a pair decides, and not who else is in the file."""
    is_long = (every.history >= 0).sum(1) >= min(rules.min_history, rules.max_history)
    return np.flatnonzero(is_long & (np.bincount(every.wanted.user, minlength=len(every)) > 0))


def _cells(sequences: Sequences, starts: Ints, stops: Ints) -> Cells:
    """Each user's events from the start to before the stop."""
    places, owner = ranges(starts, stops)
    return Cells(owner, sequences.items[places].astype(np.int64))


def _join(parts: Sequence[HeldOut], max_history: int) -> HeldOut:
    """Users end to end, of no parts none."""
    none = np.zeros(0, dtype=np.int64)
    nobody = States(np.zeros((0, max_history), dtype=np.int32), np.zeros(0, dtype=np.int32))
    before = np.cumsum([0, *map(len, parts)])
    cells = []
    for kind in ("met", "wanted"):
        found = [getattr(one, kind) for one in parts]
        users = [one.user + first for one, first in zip(found, before, strict=False)]
        cells.append(Cells(np.concatenate([none, *users]), np.concatenate([none, *(one.item for one in found)])))
    return HeldOut(States.concat([one.state for one in parts]) if parts else nobody, *cells)
