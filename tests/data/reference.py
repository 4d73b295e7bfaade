"""The pairs stage in plain Python, one row at a time: slow, and short enough to be read as its definition."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raycl.config import ColdItems, ColdUsers, ColumnSplit, LeaveLastN, LeaveLastOut, PairRules
from raycl.data.splits import Cuts

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
    context: tuple[Any, ...] = ()


class Packed(NamedTuple):
    """One row of a part."""

    user: Id
    user_row: int
    first_target: int
    items: tuple[int, ...]
    weights: tuple[float, ...]
    times_ms: tuple[int, ...]
    context: tuple[tuple[Any, ...], ...] = ()
    """What each event carries."""
    negatives: tuple[tuple[int, ...], ...] = ()
    """Item, time and event type of the user's explicit negatives."""


@dataclass
class Expected:
    """What ``sequences.build`` should return."""

    parts: dict[str, list[Packed]] = field(default_factory=lambda: {part: [] for part in PARTS})
    dropped: Counter[str] = field(default_factory=Counter)
    num_pairs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    train_counts: Counter[int] = field(default_factory=Counter)
    train_targets: Counter[int] = field(default_factory=Counter)
    num_events: int = 0
    num_negatives: int = 0
    """Of the events."""
    rare: set[Id] = field(default_factory=set)
    """Items out of the iterated core."""


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
    seed: int = 0,
    num_types: int = 256,
) -> Expected:
    """The sequences of each part of a whole log; ``items`` and ``users`` are ascending.

    Event types from ``num_types`` on are explicit negatives, where the rules have any.
    """
    expected = Expected()
    item_row = {raw: row for row, raw in enumerate(items)}
    user_row = {raw: row for row, raw in enumerate(users or ())}
    if isinstance(rules.split, ColumnSplit) and rules.split.train_on_val:
        log = [event._replace(split=0) if event.split == 1 else event for event in log]
    val_is_named = cuts.val_is_named or any(e.split == 1 and not is_negative(e, rules, num_types) for e in log)
    by_user: dict[Id, list[Event]] = defaultdict(list)
    for event in log:
        row = item_row.get(event.item)
        if row is None or (item_counts is not None and item_counts[row] < rules.min_item_events):
            expected.dropped["rare_item"] += 1
        else:
            by_user[event.user].append(event)
    every = {user: _cleaned(by_user[user], item_row, rules, expected) for user in sorted(by_user)}
    cleaned = {user: [e for e in mine if not is_negative(e, rules, num_types)] for user, mine in every.items()}
    rare = expected.rare = core(cleaned, rules).rare
    for user, mine in cleaned.items():
        kept = _kept([event for event in mine if event.item not in rare], rules, expected, seed)
        expected.dropped["rare_item"] += sum(event.item in rare for event in every[user])
        parts = _parts(kept, item_row, rules, cuts, val_is_named, seed)
        kept, parts = _capped(kept, parts, rules, expected)
        ordered = sorted(zip(parts, range(len(kept)), kept, strict=True))
        turned_down = [e for e in every[user] if is_negative(e, rules, num_types) and e.item not in rare]
        turned_down = _kept_negatives(turned_down, bool(kept), rules, expected, seed)
        expected.num_events += len(kept) + len(turned_down)
        expected.num_negatives += len(turned_down)
        expected.train_counts.update(item_row[event.item] for part, _, event in ordered if part == 0)
        for part, name in enumerate(PARTS):
            behind = 0 if isinstance(rules.split, ColdItems) else part - 1
            seen = [event for code, _, event in ordered if code == part or code <= min(behind, part - 1)]
            first = len(seen) - parts.count(part)
            if len(seen) == first:
                continue
            columns = [item_row[event.item] for event in seen], [event.weight for event in seen]
            packed = Packed(
                user,
                user_row.get(user, -1),
                first,
                tuple(columns[0]),
                tuple(columns[1]),
                tuple(event.time_ms for event in seen),
                tuple(event.context for event in seen),
                tuple((item_row[event.item], event.time_ms, event.event) for event in turned_down),
            )
            expected.parts[name].append(packed)
            made = [place for place in range(first, len(seen)) if _known(place, first, seen, part, rules)]
            expected.num_pairs[name] += len(made)
            if part == 0:
                expected.train_targets.update(packed.items[place] for place in made)
    return expected


def _cleaned(events: list[Event], item_row: dict[Id, int], rules: PairRules, expected: Expected) -> list[Event]:
    """One user's events in order, without repeats; none of a robot's."""
    once: dict[tuple[int, Id, int], Event] = {}
    named = isinstance(rules.split, ColumnSplit)  # else what a row says is not asked

    def order(event: Event) -> tuple[Any, ...]:
        context = [(value is None, value) for value in event.context]
        return event.time_ms, item_row[event.item], event.event, named and event.split, event.weight, context

    for event in sorted(events, key=order):
        if (event.time_ms, event.item, event.event) in once:
            expected.dropped["duplicate"] += 1
        once.setdefault((event.time_ms, event.item, event.event), event)
    rate = rules.max_user_rate
    too_fast = rate is not None and any(
        sum(0 <= other.time_ms - event.time_ms < 1_000 * rate.window_s for other in once.values()) > rate.events
        for event in once.values()
    )
    if len(once) > rules.max_user_events or too_fast:
        expected.dropped["robot_user"] += len(once)
        return []
    kept: list[Event] = []
    last: dict[tuple[Id, int], int] = {}
    for event in once.values():
        kind = event.item, event.event
        if kind in last and event.time_ms - last[kind] < 1_000 * rules.repeat_window_s:
            expected.dropped["repeat"] += 1
        else:
            last[kind] = event.time_ms
            kept.append(event)
    return kept


class Core(NamedTuple):
    """What is left of a log in which everything rare is out."""

    rare: set[Id]
    """Items that are out."""
    is_fixed: bool


def core(by_user: dict[Id, list[Event]], rules: PairRules) -> Core:
    """Drop rare items, then rare users, and so on for ``rules.core_rounds`` or until nothing changes."""
    rare: set[Id] = set()
    left = dict(by_user)
    for _ in range(rules.core_rounds):
        before = sum(map(len, left.values()))
        rare |= _rare(left, rules)
        left = {user: [event for event in events if event.item not in rare] for user, events in left.items()}
        left = {user: events for user, events in left.items() if len(events) >= rules.min_user_events}
        if sum(map(len, left.values())) == before:
            break
    return Core(rare, not _rare(left, rules))


def _rare(by_user: dict[Id, list[Event]], rules: PairRules) -> set[Id]:
    counts = Counter(event.item for events in by_user.values() for event in events)
    return {item for item, count in counts.items() if count < rules.min_item_events}


def _kept(events: list[Event], rules: PairRules, expected: Expected, seed: int) -> list[Event]:
    """One user's events, none that a later part would see as history, and none of a rare user's."""
    kept = events
    if rules.history == "before" and isinstance(rules.split, ColumnSplit | ColdItems):
        named = [_named(event, rules, seed) for event in events]
        kept = [
            event
            for event, part in zip(events, named, strict=True)
            if not any(
                later > part and other.time_ms < event.time_ms for other, later in zip(events, named, strict=True)
            )
        ]
        expected.dropped["after_held_out"] += len(events) - len(kept)
    if len(kept) < rules.min_user_events:
        expected.dropped["rare_user"] += len(kept)
        return []
    return kept


def is_negative(event: Event, rules: PairRules, num_types: int) -> bool:
    """Whether an event is an explicit negative."""
    return (bool(rules.negative_events) and event.event >= num_types) or (
        rules.negative_below is not None and event.weight < rules.negative_below
    )


def _kept_negatives(
    events: list[Event], has_events: bool, rules: PairRules, expected: Expected, seed: int
) -> list[Event]:
    """One user's explicit negatives that training may know, if the user ``has_events`` to go with them."""
    named = isinstance(rules.split, ColumnSplit | ColdItems)
    kept = [event for event in events if not (named and _named(event, rules, seed))]
    expected.dropped["held_out_negative"] += len(events) - len(kept)
    if not has_events:
        expected.dropped["rare_user"] += len(kept)
        return []
    newest = kept[-rules.keep_user_events :] if rules.keep_user_events else kept
    expected.dropped["over_cap"] += len(kept) - len(newest)
    return newest


def _capped(
    events: list[Event], parts: list[int], rules: PairRules, expected: Expected
) -> tuple[list[Event], list[int]]:
    """Without the oldest events of those that are not held out."""
    places = [place for place, part in enumerate(parts) if part <= 0]
    cut = places[: -rules.keep_user_events] if rules.keep_user_events else []
    expected.dropped["over_cap"] += len(cut)
    kept = [place for place in range(len(parts)) if place not in cut]
    return [events[place] for place in kept], [parts[place] for place in kept]


def cold_part(raw: Id, split: ColdUsers | ColdItems, seed: int) -> int:
    """0 for training, 1 or 2 for what is kept out of it."""
    salt = int.from_bytes(b"user" if split.kind == "cold_users" else b"item")
    share = (splitmix64(hash_id(raw) ^ splitmix64(seed) ^ salt) >> 11) / 2**53
    return 1 if share < split.val_share else 2 if share < split.val_share + split.test_share else 0


def _named(event: Event, rules: PairRules, seed: int) -> int:
    return cold_part(event.item, rules.split, seed) if isinstance(rules.split, ColdItems) else event.split


def _parts(
    events: list[Event], item_row: dict[Id, int], rules: PairRules, cuts: Cuts, val_is_named: bool, seed: int
) -> list[int]:
    if isinstance(rules.split, LeaveLastOut | LeaveLastN):
        val, test = (1, 1) if isinstance(rules.split, LeaveLastOut) else (rules.split.num_val, rules.split.num_test)
        num_train = len(events) - val - test
        return [0] * num_train + [1] * val + [2] * test if num_train > 0 else [0] * len(events)
    if isinstance(rules.split, ColdUsers):
        part = cold_part(events[0].user, rules.split, seed) if events else 0
        return [-1] * (len(events) - 1) + [part] if part else [0] * len(events)
    if isinstance(rules.split, ColdItems):
        return [_named(event, rules, seed) for event in events]
    if not isinstance(rules.split, ColumnSplit):
        return [(e.time_ms >= cuts.val_from_ms) + (e.time_ms >= cuts.test_from_ms) for e in events]
    parts = [event.split for event in events]
    training = [place for place, part in enumerate(parts) if part == 0]
    held_out = rules.split.hold_out_val and not rules.split.train_on_val
    if held_out and not val_is_named and len(training) >= 3 and rules.history == "before":
        parts[training[-1]] = 1
    elif held_out and not val_is_named and len(training) >= 3:
        drawn = {
            place: splitmix64(hash_id(events[place].user) ^ splitmix64(item_row[events[place].item]))
            for place in training
        }
        parts[min(training, key=lambda place: (drawn[place], place))] = 1
    return parts


def _known(place: int, first: int, seen: Sequence[Event], part: int, rules: PairRules) -> bool:
    """Whether enough events stand behind a target."""
    if rules.history == "before":
        behind = seen[:first] if isinstance(rules.split, ColdItems) and part else seen
        return sum(event.time_ms < seen[place].time_ms for event in behind) >= rules.min_history
    return (first if part else len(seen) - 1) >= rules.min_history
