"""The pairs stage in plain Python, one row at a time: slow, and short enough to be read as its definition."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from raycl.config import ColumnSplit, LeaveLastOut, PairRules
from raycl.data.sequences import Cuts

Id = int | str
PARTS = ("train", "val", "test")
MASK = 2**64 - 1


class Event(NamedTuple):
    """One cleaned log row."""

    user: Id
    item: Id
    time_ms: int
    weight: float = 1.0
    event: int = 0
    split: int = 0


class Packed(NamedTuple):
    """One row of a part."""

    user: Id
    user_row: int
    first_target: int
    items: tuple[int, ...]
    weights: tuple[float, ...]
    times_ms: tuple[int, ...]


@dataclass
class Expected:
    """What ``sequences.build`` should return."""

    parts: dict[str, list[Packed]] = field(default_factory=lambda: {part: [] for part in PARTS})
    dropped: Counter[str] = field(default_factory=Counter)
    num_pairs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    train_counts: Counter[int] = field(default_factory=Counter)
    train_targets: Counter[int] = field(default_factory=Counter)
    num_events: int = 0


def splitmix64(key: int) -> int:
    """One step of SplitMix64 on Python's own integers."""
    mixed = (key + 0x9E3779B97F4A7C15) & MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return mixed ^ (mixed >> 31)


def fnv1a(text: bytes) -> int:
    """FNV-1a of 64 bits, a byte at a time."""
    value = 0xCBF29CE484222325
    for byte in text:
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def hash_id(raw: Id) -> int:
    """The hash of one id; strings of up to 256 bytes."""
    return splitmix64(fnv1a(raw.encode()) if isinstance(raw, str) else raw & MASK)


def build(
    log: Sequence[Event],
    items: Sequence[Id],
    users: Sequence[Id] | None,
    rules: PairRules,
    cuts: Cuts,
    item_counts: Sequence[int] | None = None,
) -> Expected:
    """The sequences of each part of a whole log; ``items`` and ``users`` are ascending."""
    expected = Expected()
    item_row = {raw: row for row, raw in enumerate(items)}
    user_row = {raw: row for row, raw in enumerate(users or ())}
    val_is_named = cuts.val_is_named or any(event.split == 1 for event in log)
    by_user: dict[Id, list[Event]] = defaultdict(list)
    for event in log:
        row = item_row.get(event.item)
        if row is None or (item_counts is not None and item_counts[row] < rules.min_item_events):
            expected.dropped["rare_item"] += 1
        else:
            by_user[event.user].append(event)
    for user in sorted(by_user):
        kept = _kept(by_user[user], item_row, rules, expected)
        parts = _parts(kept, item_row, rules, cuts, val_is_named)
        ordered = sorted(zip(parts, range(len(kept)), kept, strict=True))
        expected.num_events += len(kept)
        expected.train_counts.update(item_row[event.item] for part, _, event in ordered if part == 0)
        for part, name in enumerate(PARTS):
            seen = [event for code, _, event in ordered if code <= part]
            first = sum(code < part for code in parts)
            if len(seen) == first:
                continue
            columns = [item_row[event.item] for event in seen], [event.weight for event in seen]
            packed = Packed(
                user, user_row.get(user, -1), first, tuple(columns[0]), tuple(columns[1]), tuple(e[2] for e in seen)
            )
            expected.parts[name].append(packed)
            made = [place for place in range(first, len(seen)) if _known(place, first, seen, part, rules)]
            expected.num_pairs[name] += len(made)
            if part == 0:
                expected.train_targets.update(packed.items[place] for place in made)
    return expected


def _kept(events: list[Event], item_row: dict[Id, int], rules: PairRules, expected: Expected) -> list[Event]:
    """One user's events in order, without repeats; none of a robot's or a rare user's."""
    kept: dict[tuple[int, Id, int], Event] = {}
    for event in sorted(events, key=lambda e: (e.time_ms, item_row[e.item], e.event, e.split, e.weight)):
        if (event.time_ms, event.item, event.event) in kept:
            expected.dropped["duplicate"] += 1
        kept.setdefault((event.time_ms, event.item, event.event), event)
    if len(kept) > rules.max_user_events:
        expected.dropped["robot_user"] += len(kept)
        return []
    events = list(kept.values())
    if rules.history == "before" and isinstance(rules.split, ColumnSplit):
        events = [
            event
            for event in kept.values()
            if not any(other.split > event.split and other.time_ms < event.time_ms for other in kept.values())
        ]
        expected.dropped["after_held_out"] += len(kept) - len(events)
    if len(events) < rules.min_user_events:
        expected.dropped["rare_user"] += len(events)
        return []
    return events


def _parts(events: list[Event], item_row: dict[Id, int], rules: PairRules, cuts: Cuts, val_is_named: bool) -> list[int]:
    if isinstance(rules.split, LeaveLastOut):
        return [0] * (len(events) - 2) + [1, 2] if len(events) >= 3 else [0] * len(events)
    if not isinstance(rules.split, ColumnSplit):
        return [(e.time_ms >= cuts.val_from_ms) + (e.time_ms >= cuts.test_from_ms) for e in events]
    parts = [event.split for event in events]
    training = [place for place, part in enumerate(parts) if part == 0]
    if rules.split.hold_out_val and not val_is_named and len(training) >= 3 and rules.history == "before":
        parts[training[-1]] = 1
    elif rules.split.hold_out_val and not val_is_named and len(training) >= 3:
        drawn = {
            place: splitmix64(hash_id(events[place].user) ^ splitmix64(item_row[events[place].item]))
            for place in training
        }
        parts[min(training, key=lambda place: (drawn[place], place))] = 1
    return parts


def _known(place: int, first: int, seen: Sequence[Event], part: int, rules: PairRules) -> bool:
    """Whether enough events stand behind a target."""
    if rules.history == "before":
        return sum(event.time_ms < seen[place].time_ms for event in seen) >= rules.min_history
    return (first if part else len(seen) - 1) >= rules.min_history
