"""Packed sequences back to pairs, in whole batches: the same global batches for any number of readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.config import PairRules
from raycl.data.columns import whole
from raycl.data.hashing import mix
from raycl.storage import tables
from raycl.storage.store import Store

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Sequences end to end: user ``u`` has the flat places ``offsets[u]`` to ``offsets[u + 1]`` of the columns."""

    offsets: Ints
    items: Rows
    weights: npt.NDArray[np.float32]
    first_target: Ints
    user_row: Rows
    times_ms: Ints
    moment: Ints
    """Of each place, the first place with its user and time: what is strictly before an event ends there."""

    def __len__(self) -> int:
        return len(self.user_row)

    @classmethod
    def from_table(cls, table: pa.Table) -> Sequences:
        """Read the columns of ``schema.sequences`` without copying the lists."""
        lists, weights, times = (whole(table[name]) for name in ("items", "weights", "times_ms"))
        offsets = lists.offsets.to_numpy().astype(np.int64)
        offsets = offsets - offsets[0] if len(offsets) else np.zeros(1, dtype=np.int64)
        times_ms = times.flatten().to_numpy(zero_copy_only=False)
        return cls(
            offsets,
            lists.flatten().to_numpy(zero_copy_only=False),
            weights.flatten().to_numpy(zero_copy_only=False),
            table["first_target"].to_numpy().astype(np.int64),
            table["user_row"].to_numpy(),
            times_ms,
            _moments(offsets, times_ms),
        )

    def targets(self, rules: PairRules, *, held_out: bool = False) -> Ints:
        """Flat places of every event that makes a pair; ``held_out``: in val or test, which see their context alone."""
        sizes = np.diff(self.offsets)
        starts, first = np.repeat(self.offsets[:-1], sizes), np.repeat(self.first_target, sizes)
        is_target = np.arange(len(self.items)) - starts >= first
        if rules.history == "before":
            cold = held_out and rules.split.kind == "cold_items"  # earlier targets are no history of later ones
            ends = np.minimum(self.moment, starts + first) if cold else self.moment
            is_target &= ends - starts >= rules.min_history
            if rules.kind == "item_to_item":
                is_target &= ends > self.anchors_from(rules)
            return np.flatnonzero(is_target)
        known = first if held_out else np.where(first > 0, first, np.repeat(sizes, sizes) - 1)
        return np.flatnonzero(is_target & (known >= rules.min_history))

    def anchors_from(self, rules: PairRules) -> Ints:
        """Of each place, the first one of its user that may be its anchor in an item-to-item pair.

        At most ``rules.within_s`` earlier, and with no pause of more than ``rules.session_gap_s`` up to the place.
        """
        sizes = np.diff(self.offsets)
        first = np.repeat(self.offsets[:-1], sizes)
        if not len(first):
            return first
        if rules.session_gap_s is not None:
            opens = np.diff(self.times_ms, prepend=0) > 1000 * rules.session_gap_s
            first = np.maximum(first, np.maximum.accumulate(np.where(opens, np.arange(len(first)), 0)))
        if rules.within_s is not None:
            # Users end to end on one axis of time, further apart than the window is long.
            since = self.times_ms - np.repeat(self.times_ms[self.offsets[:-1][sizes > 0]], sizes[sizes > 0])
            window = 1000 * rules.within_s
            axis = since + np.repeat(np.cumsum(np.append(0, _spans(since, self.offsets)[:-1] + window + 1)), sizes)
            first = np.maximum(first, np.searchsorted(axis, axis - window))
        return first

    def states(self, rules: PairRules) -> Rows:
        """Each user's state before the first target: the last ``max_history`` context items, newest first, then -1.

        Only items strictly before the target's time. Where events have no order, some of all context items, drawn by
        hash of the place.
        """
        if rules.history == "before":
            ends = self.moment[self.offsets[:-1] + self.first_target]
            return _gather(self.items, self.offsets[:-1], ends, rules.max_history)
        users = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        is_target = np.arange(len(self.items)) - self.offsets[users] >= self.first_target[users]
        drawn = mix(np.arange(len(self.items), dtype=np.uint64))
        shuffled = self.items[np.lexsort((drawn, is_target, users))]
        return _gather(shuffled, self.offsets[:-1], self.offsets[:-1] + self.first_target, rules.max_history)


@dataclass(frozen=True)
class Batch:
    """``size`` pairs; histories hold rows of the vocabulary, the newest first, and -1 where there is none."""

    history: Rows
    """(size, max_history)"""
    item: Rows
    """(size,)"""
    weight: npt.NDArray[np.float32]
    """(size,)"""
    user_row: Rows
    """(size,); -1 for a user who is not in the user table"""

    def __len__(self) -> int:
        return len(self.item)

    def part(self, rank: int, world_size: int) -> Batch:
        """The ``rank``-th of ``world_size`` equal runs of the batch."""
        size = len(self) // world_size
        rows = slice(rank * size, (rank + 1) * size)
        return Batch(self.history[rows], self.item[rows], self.weight[rows], self.user_row[rows])


def batch(sequences: Sequences, places: Ints, rules: PairRules) -> Batch:
    """The pairs whose targets are at these flat places, with the events strictly before each target's time."""
    users = np.searchsorted(sequences.offsets, places, side="right") - 1
    history = _gather(sequences.items, sequences.offsets[users], sequences.moment[places], rules.max_history)
    return Batch(history, sequences.items[places], sequences.weights[places], sequences.user_row[users])


def _batch_of_anchors(sequences: Sequences, places: Ints, anchors_from: Ints, drawn: npt.NDArray[np.float64]) -> Batch:
    """Item-to-item pairs: each target with one earlier event, at the share ``drawn`` [0, 1) of those that may be it."""
    users = np.searchsorted(sequences.offsets, places, side="right") - 1
    choices = sequences.moment[places] - anchors_from[places]
    anchors = anchors_from[places] + (drawn[places] * choices).astype(np.int64)
    history = sequences.items[anchors][:, None]
    return Batch(history, sequences.items[places], sequences.weights[places], sequences.user_row[users])


@dataclass(frozen=True)
class _Shuffle:
    """A permutation of the flat places within each user, both ways."""

    places: Ints
    turn: Ints
    """Where each place stands in ``places``."""


def _batch_of_others(sequences: Sequences, places: Ints, rules: PairRules, shuffle: _Shuffle) -> Batch:
    """Training pairs of a log without time: each target with other events of its user.

    The history is the run that follows the target in ``shuffle``, turning at the end, so it never holds the target's
    own event.
    """
    users = np.searchsorted(sequences.offsets, places, side="right") - 1
    starts, sizes = sequences.offsets[users], np.diff(sequences.offsets)[users]
    steps = np.arange(1, rules.max_history + 1)
    turn = (shuffle.turn[places] - starts)[:, None] + steps
    others = shuffle.places[starts[:, None] + turn % sizes[:, None]]
    history = np.where(steps < sizes[:, None], sequences.items[others], -1).astype(np.int32)
    history[history == sequences.items[places][:, None]] = -1
    return Batch(history, sequences.items[places], sequences.weights[places], sequences.user_row[users])


def _gather(items: Rows, starts: Ints, ends: Ints, width: int) -> Rows:
    """The last ``width`` of the items from each of ``starts`` to before its end, the last one first, then -1."""
    if not len(items):
        return np.full((len(starts), width), -1, dtype=np.int32)
    places = (ends - 1)[:, None] - np.arange(width)
    return np.where(places >= starts[:, None], items[np.maximum(places, 0)], -1).astype(np.int32)


def _spans(since: Ints, offsets: Ints) -> Ints:
    """Of each user, the time from the first event to the last."""
    spans = np.zeros(len(offsets) - 1, dtype=np.int64)
    some = np.diff(offsets) > 0
    spans[some] = since[offsets[1:][some] - 1]
    return spans


def _moments(offsets: Ints, times_ms: Ints) -> Ints:
    """Of each place, the first place of its run of equal times within the user."""
    opens = np.diff(times_ms, prepend=0) != 0
    opens[offsets[:-1][np.diff(offsets) > 0]] = True
    return np.maximum.accumulate(np.where(opens, np.arange(len(times_ms)), 0))


@dataclass(frozen=True)
class PairStream:
    """The pairs of one part, shuffled anew each epoch and cut into global batches.

    Files are drawn in a random order into windows of about ``shuffle_pairs`` pairs, and the pairs of a window are
    shuffled whole. The order is a function of seed and epoch alone, so N readers that each take their part of every
    global batch see together what one reader sees.
    """

    store: Store
    files: tuple[tuple[str, int], ...]
    """Path and number of pairs of each file."""
    rules: PairRules
    global_batch_size: int
    shuffle_pairs: int
    seed: int

    @property
    def steps(self) -> int:
        """Global batches an epoch; the last pairs that do not fill one wait for another epoch's shuffle."""
        return sum(pairs for _, pairs in self.files) // self.global_batch_size

    def epoch(self, epoch: int, rank: int = 0, world_size: int = 1, first_step: int = 0) -> Iterator[Batch]:
        """This rank's part of each global batch, from ``first_step`` on."""
        generator = np.random.default_rng([self.seed, epoch])
        size, step = self.global_batch_size, 0
        left: Batch | None = None
        for window in self._windows(generator):
            sequences = read(self.store, window)
            places = sequences.targets(self.rules)
            generator.shuffle(places)
            make = self._maker(sequences, generator)
            start = 0
            while start + size - (len(left) if left else 0) <= len(places):
                stop = start + size - (len(left) if left else 0)
                if step >= first_step:
                    chosen = places[start:stop]
                    if left is None:
                        chosen = chosen[rank * size // world_size : (rank + 1) * size // world_size]
                    made = make(chosen)
                    yield _join([left, made]).part(rank, world_size) if left is not None else made
                step, start, left = step + 1, stop, None
            rest = make(places[start:])
            left = _join([left, rest]) if left is not None else rest
            left = left if len(left) else None

    def _maker(self, sequences: Sequences, generator: np.random.Generator) -> Callable[[Ints], Batch]:
        """Flat places of a window to pairs; what is drawn is drawn for the whole window, the same for every rank."""
        if self.rules.history == "others":
            shuffle = _permute_within(sequences, generator)
            return lambda places: _batch_of_others(sequences, places, self.rules, shuffle)
        if self.rules.kind == "item_to_item":
            anchors_from, drawn = sequences.anchors_from(self.rules), generator.random(len(sequences.items))
            return lambda places: _batch_of_anchors(sequences, places, anchors_from, drawn)
        return lambda places: batch(sequences, places, self.rules)

    def _windows(self, generator: np.random.Generator) -> Iterator[list[str]]:
        window, pairs = [], 0
        for position in generator.permutation(len(self.files)):
            path, file_pairs = self.files[position]
            window.append(path)
            pairs += file_pairs
            if pairs >= self.shuffle_pairs:
                yield window
                window, pairs = [], 0
        if window:
            yield window


def read(store: Store, paths: Sequence[str]) -> Sequences:
    """The sequences of these files, in their order."""
    columns = ["items", "weights", "times_ms", "first_target", "user_row"]
    return Sequences.from_table(pa.concat_tables(tables.read(store, path, columns) for path in paths))


def _join(batches: Sequence[Batch]) -> Batch:
    return Batch(
        np.concatenate([one.history for one in batches]),
        np.concatenate([one.item for one in batches]),
        np.concatenate([one.weight for one in batches]),
        np.concatenate([one.user_row for one in batches]),
    )


def _permute_within(sequences: Sequences, generator: np.random.Generator) -> _Shuffle:
    """The flat places, those of each user in a random order of their own."""
    users = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    places = np.lexsort((generator.random(len(users)), users))
    turn = np.empty_like(places)
    turn[places] = np.arange(len(places))
    return _Shuffle(places, turn)
