"""Packed sequences back to pairs, in whole batches: the same global batches for any number of readers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl import schema
from raycl.config import PairRules
from raycl.data.ahead import ahead
from raycl.data.columns import whole
from raycl.data.features import Encoders
from raycl.data.packed import Ints, Rows, Sequences, last_of
from raycl.errors import InputError
from raycl.storage import tables
from raycl.storage.store import Store


class Limits(NamedTuple):
    """How many rows the tables have that sequences point into."""

    num_items: int
    num_users: int | None
    """None where nothing is looked up of a user."""

    def require(self, table: pa.Table, place: str) -> None:
        """InputError that names ``place`` where the table points outside."""
        counts = {"items": self.num_items, schema.NEGATIVES[0]: self.num_items, "user_row": self.num_users}
        for name, count in counts.items():
            if name in table.column_names and count is not None:
                values = whole(table[name])
                found = pc.min_max(values if name == "user_row" else values.flatten()).as_py()
                least = -1 if name == "user_row" else 0
                outside = [row for row in found.values() if row is not None and not least <= row < count]
                if outside:
                    raise InputError(
                        f"{place} points at row {outside[0]} in column '{name}', and there are {count:,}: the file is"
                        f" not of these pairs; run 'raycl pairs --force'"
                    )


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
class _Window:
    """The pairs of some files, shuffled together."""

    start: int
    """Pairs of the epoch before these."""
    places: Ints
    make: Callable[[Ints], Batch]

    @property
    def stop(self) -> int:
        return self.start + len(self.places)

    def batch(self, first: int, last: int) -> Batch:
        """Those of the epoch's pairs from ``first`` to before ``last`` that are in this window."""
        return self.make(self.places[max(first - self.start, 0) : last - self.start])


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
    limits: Limits | None = None
    """What the files may point to; None does not look."""
    user_balance: float = 0.0
    """Pairs of a user with n of them weigh by n to the power of minus this, at a mean of 1 over those of a window."""

    @property
    def steps(self) -> int:
        """Global batches an epoch; the last pairs that do not fill one wait for another epoch's shuffle."""
        return sum(pairs for _, pairs in self.files) // self.global_batch_size

    @property
    def order(self) -> dict[str, int]:
        """What the global batches of an epoch follow from, besides the pairs themselves."""
        return {
            "seed": self.seed,
            "train.global_batch_size": self.global_batch_size,
            "train.shuffle_pairs": self.shuffle_pairs,
        }

    def epoch(self, epoch: int, rank: int = 0, world_size: int = 1, first_step: int = 0) -> Iterator[Batch]:
        """This rank's part of each global batch, from ``first_step`` on.

        While the pairs of a window are handed out, the next window is read and shuffled; no more than these two are in
        memory. Close the iterator to end early.
        """
        size, step = self.global_batch_size, first_step
        first, last = rank * size // world_size, (rank + 1) * size // world_size
        pieces: list[Batch] = []
        with contextlib.closing(ahead(self._shuffled(epoch, first_step * size), 1)) as windows:
            for window in windows:
                while step < self.steps and step * size + first < window.stop:
                    pieces.append(window.batch(step * size + first, step * size + last))
                    if step * size + last > window.stop:
                        break
                    yield _join(pieces)
                    pieces, step = [], step + 1

    def _shuffled(self, epoch: int, first_pair: int) -> Iterator[_Window]:
        """The windows of an epoch that hold pairs of its batches, from its pair number ``first_pair`` on."""
        generator = np.random.default_rng([self.seed, epoch])
        start, last_stop = 0, self.steps * self.global_batch_size
        for paths, pairs in self._windows(generator):
            stop = start + pairs
            if max(start, first_pair) < min(stop, last_stop):
                yield self._window(paths, start, generator)
            elif self._draws_events:
                self._window(paths, start, generator)
            else:
                generator.shuffle(np.arange(pairs))  # the same draws as of the places that are not read
            start = stop

    def _window(self, paths: Sequence[str], start: int, generator: np.random.Generator) -> _Window:
        sequences = self._encoded(read(self.store, paths, "train", self._more_columns, self.limits))
        if self.rules.history == "others":
            sequences = sequences.trained_on()
        places = sequences.targets(self.rules)
        sequences = _balanced(sequences, places, self.user_balance)
        generator.shuffle(places)
        return _Window(start, places, self._maker(sequences, generator))

    @property
    def _draws_events(self) -> bool:
        """Whether what is drawn for a window depends on more than its number of pairs."""
        return self.rules.history == "others" or self.rules.kind == "item_to_item"

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

    def _windows(self, generator: np.random.Generator) -> Iterator[tuple[list[str], int]]:
        """Files of each window, and how many pairs they have."""
        window: list[str] = []
        pairs = 0
        for position in generator.permutation(len(self.files)):
            path, file_pairs = self.files[position]
            window.append(path)
            pairs += file_pairs
            if pairs >= self.shuffle_pairs:
                yield window, pairs
                window, pairs = [], 0
        if window:
            yield window, pairs


def read(
    store: Store, paths: Sequence[str], part: str, more: Sequence[str] = (), limits: Limits | None = None
) -> Sequences:
    """The sequences of the users with targets in ``part``, in the order of these files; ``more`` are other columns.

    InputError names a file that points outside the ``limits``.
    """
    columns = ["items", "weights", "times_ms", "user_row", *schema.BOUNDS, *more]
    found = []
    for path in paths:
        found.append(tables.read(store, path, columns))
        if limits is not None:
            limits.require(found[-1], f"{store.uri}/{path}")
    return Sequences.from_table(pa.concat_tables(found), part)


def _join(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    columns = {name: np.concatenate([one.arrays[name] for one in batches]) for name in batches[0].arrays}
    names = batches[0].context
    return Batch(**columns, context={name: pa.concat_arrays([one.context[name] for one in batches]) for name in names})


def _balanced(sequences: Sequences, places: Ints, power: float) -> Sequences:
    """The sequences with weights by which pairs of users with many of these targets count for less each."""
    if power == 0.0 or not len(places):
        return sequences
    num_pairs = np.bincount(sequences.users_at(places), minlength=len(sequences))
    factor = np.maximum(num_pairs, 1.0) ** -power
    factor *= len(places) / (num_pairs * factor).sum()
    weights = sequences.weights * np.repeat(factor, np.diff(sequences.offsets))
    return replace(sequences, weights=weights.astype(np.float32))


def _permute_within(sequences: Sequences, generator: np.random.Generator) -> _Shuffle:
    """The flat places, those of each user in a random order of their own."""
    users = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    places = np.lexsort((generator.random(len(users)), users))
    turn = np.empty_like(places)
    turn[places] = np.arange(len(places))
    return _Shuffle(places, turn)
