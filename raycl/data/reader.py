"""Packed sequences back to pairs, in whole batches: the same global batches for any number of readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl import schema
from raycl.config import PairRules
from raycl.data.columns import whole
from raycl.data.features import Encoders
from raycl.data.packed import Ints, Rows, Sequences, last_of
from raycl.storage import tables
from raycl.storage.store import Store


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
    time_ms: Ints
    """(size,) of the target; 0 in a log without time"""
    history_age_s: npt.NDArray[np.float32] | None = None
    """(size, max_history) seconds from each event of the history to the target, 0 where there is none; less than 0 only
    where histories do not follow time. None where the stream is not asked for it."""
    negatives: Rows | None = None
    """(size, max_negatives) rows of the vocabulary, then -1: what the user turned down before the target, the newest
    first; of a log without time any of it. The target itself may be among them, if the user came round to it. None
    where the rules have no negatives."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """By column of the log: an Arrow array (size,) of what the target's event carries, as the log has it or encoded."""

    def __len__(self) -> int:
        return len(self.item)

    def part(self, rank: int, world_size: int) -> Batch:
        """The ``rank``-th of ``world_size`` equal runs of the batch."""
        size = len(self) // world_size
        rows = slice(rank * size, (rank + 1) * size)
        columns = {name: column[rows] for name, column in self.arrays.items()}
        return Batch(**columns, context={name: values[rows] for name, values in self.context.items()})

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What there is besides context, by field."""
        return {name: column for name, column in vars(self).items() if isinstance(column, np.ndarray)}


def batch(sequences: Sequences, places: Ints, rules: PairRules, *, with_ages: bool = False) -> Batch:
    """The pairs whose targets are at these flat places, with the events strictly before each target's time."""
    users = sequences.users_at(places)
    ends = sequences.moment[places]
    history = last_of(sequences.items, sequences.offsets[users], ends, rules.max_history)
    seen = ends[:, None] - np.arange(1, rules.max_history + 1) if with_ages else None
    return _batch(sequences, places, users, rules, history, seen)


def _batch(
    sequences: Sequences, places: Ints, users: Ints, rules: PairRules, history: Rows, seen: Ints | None
) -> Batch:
    """Pairs with these histories; ``seen`` are the flat places of their events, for ages, or None."""
    times_ms, ages = sequences.times_ms[places], None
    if seen is not None:
        past_ms = times_ms[:, None] - sequences.times_ms[np.maximum(seen, 0)]
        ages = np.where(history >= 0, past_ms / 1000, 0).astype(np.float32)
    return Batch(
        history,
        sequences.items[places],
        sequences.weights[places],
        sequences.user_row[users],
        times_ms,
        ages,
        sequences.negatives_of(places, rules),
        {name: values.take(pa.array(places)) for name, values in sequences.context.items()},
    )


def _batch_of_anchors(
    sequences: Sequences,
    places: Ints,
    rules: PairRules,
    anchors_from: Ints,
    drawn: npt.NDArray[np.float64],
    *,
    with_ages: bool,
) -> Batch:
    """Item-to-item pairs: each target with one earlier event, at the share ``drawn`` [0, 1) of those that may be it."""
    choices = sequences.moment[places] - anchors_from[places]
    anchors = (anchors_from[places] + (drawn[places] * choices).astype(np.int64))[:, None]
    users = sequences.users_at(places)
    return _batch(sequences, places, users, rules, sequences.items[anchors], anchors if with_ages else None)


@dataclass(frozen=True)
class _Shuffle:
    """A permutation of the flat places within each user, both ways."""

    places: Ints
    turn: Ints
    """Where each place stands in ``places``."""


def _batch_of_others(
    sequences: Sequences, places: Ints, rules: PairRules, shuffle: _Shuffle, *, with_ages: bool = False
) -> Batch:
    """Training pairs of a log without time: each target with other events of its user.

    The history is the run that follows the target in ``shuffle``, turning at the end, so it never holds the target's
    own event.
    """
    users = sequences.users_at(places)
    starts, sizes = sequences.offsets[users], np.diff(sequences.offsets)[users]
    steps = np.arange(1, rules.max_history + 1)
    turn = (shuffle.turn[places] - starts)[:, None] + steps
    others = shuffle.places[starts[:, None] + turn % sizes[:, None]]
    history = np.where(steps < sizes[:, None], sequences.items[others], -1).astype(np.int32)
    history[history == sequences.items[places][:, None]] = -1
    return _batch(sequences, places, users, rules, history, others if with_ages else None)


@dataclass(frozen=True)
class PairStream:
    """The training pairs, shuffled anew each epoch and cut into global batches.

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
    with_ages: bool = False
    """Whether batches have ``history_age_s``."""
    with_negatives: bool = False
    """Whether batches have ``negatives``, where the rules have any."""
    context: tuple[str, ...] = ()
    """Columns of the log that batches have, of those that the pairs were made with."""
    encoders: Encoders | None = None
    """What encodes them, a window at a time; None leaves them as they are in the log."""

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
            sequences = self._encoded(read(self.store, window, "train", self._more_columns))
            if self.rules.history == "others":
                sequences = sequences.trained_on()
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
        rules, with_ages = self.rules, self.with_ages
        if rules.history == "others":
            shuffle = _permute_within(sequences, generator)
            return lambda places: _batch_of_others(sequences, places, rules, shuffle, with_ages=with_ages)
        if rules.kind == "item_to_item":
            anchors_from, drawn = sequences.anchors_from(rules), generator.random(len(sequences.items))
            return lambda places: _batch_of_anchors(sequences, places, rules, anchors_from, drawn, with_ages=with_ages)
        return lambda places: batch(sequences, places, rules, with_ages=with_ages)

    def _encoded(self, sequences: Sequences) -> Sequences:
        if self.encoders is None or not sequences.context:
            return sequences
        encoded = self.encoders.encode(pa.table(dict(sequences.context)))
        return replace(sequences, context={name: whole(encoded[name]) for name in encoded.column_names})

    @property
    def _more_columns(self) -> list[str]:
        """Columns of the files that these batches need besides those of every pair."""
        negatives = schema.NEGATIVES if self.with_negatives and self.rules.has_negatives else ()
        return [*negatives, *map(schema.context_column, self.context)]

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


def read(store: Store, paths: Sequence[str], part: str, more: Sequence[str] = ()) -> Sequences:
    """The sequences of the users with targets in ``part``, in the order of these files; ``more`` are other columns."""
    columns = ["items", "weights", "times_ms", "user_row", *schema.BOUNDS, *more]
    return Sequences.from_table(pa.concat_tables(tables.read(store, path, columns) for path in paths), part)


def _join(batches: Sequence[Batch]) -> Batch:
    columns = {name: np.concatenate([one.arrays[name] for one in batches]) for name in batches[0].arrays}
    names = batches[0].context
    return Batch(**columns, context={name: pa.concat_arrays([one.context[name] for one in batches]) for name in names})


def _permute_within(sequences: Sequences, generator: np.random.Generator) -> _Shuffle:
    """The flat places, those of each user in a random order of their own."""
    users = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    places = np.lexsort((generator.random(len(users)), users))
    turn = np.empty_like(places)
    turn[places] = np.arange(len(places))
    return _Shuffle(places, turn)
