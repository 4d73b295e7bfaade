"""What tasks tell the data report: the same as a pass over the rows, and the same however the log is cut."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.config import ColdItems, ColdUsers, LeaveLastN, PairRules, TimeSplit
from raycl.data.histogram import Histogram
from raycl.data.report_sketch import Kept, Rows
from raycl.data.sequences import Built, count_items
from raycl.data.splits import Cuts
from tests.data.builders import few_cases, packed
from tests.data.reference import PARTS, Event, Packed
from tests.data.test_clean import FULL, NUMBER, cleaner, rows
from tests.data.test_sequences import Case, build, cases, expected_of, names_val

_EIGHT_HOURS = 28_800_000
_DAY = 86_400_000


def in_days(case: Case) -> Case:
    """The same case at moments of some days, with what it says of validation said to all of its parts."""
    unit = next(unit for unit in (1, 1_000, 2**59) if all(event.time_ms <= 7 * unit for event in case.log))
    val_from, test_from = (bound // unit * _EIGHT_HOURS for bound in (case.cuts.val_from_ms, case.cuts.test_from_ms))
    log = [event._replace(time_ms=event.time_ms // unit * _EIGHT_HOURS) for event in case.log]
    return case._replace(log=log, cuts=Cuts(val_from, test_from, names_val(case)))


def kept_of(case: Case, rare: set[Any] | None = None) -> Kept:
    return Kept.of(build(case, rare), 2)


def naive_kept(built: Built) -> dict[str, Any]:
    """Days, types and events a user, one event at a time."""
    rows = built.table.to_pylist()
    times = [[*row["times_ms"], *row.get("negative_times_ms", [])] for row in rows]
    days = Counter(time // _DAY for mine in times for time in mine)
    types = Counter([*built.event_types.tolist(), *(built.negatives.event.tolist() if built.negatives else [])])
    sizes = sorted(map(len, times))
    return {"days": dict(sorted(days.items())), "types": (types[0], types[1]), "users": sizes}


def naive_targets(row: Packed, rules: PairRules, *, held_out: bool) -> dict[int, int]:
    """Of each place that is a target, how many events its pair may look at."""
    found = {}
    for place in range(row.first_target, len(row.items)):
        if rules.history == "others":
            behind = row.first_target if held_out or row.first_target else len(row.items) - 1
        else:
            last = row.first_target if held_out and rules.split.kind == "cold_items" else len(row.items)
            behind = sum(time < row.times_ms[place] for time in row.times_ms[:last])
        if behind >= rules.min_history:
            found[place] = behind
    return found


@few_cases
@given(cases().map(in_days))
def test_every_kept_event_is_counted_once(case: Case) -> None:
    built, kept = build(case), kept_of(case)
    naive = naive_kept(built)
    assert sum(kept.types) == built.num_events == sum(naive["users"]) == kept.users.total
    assert (kept.days, kept.undated, kept.types) == (naive["days"], 0, naive["types"])
    assert kept.users.to_json() == Histogram.of(np.array(naive["users"], dtype=np.int64)).to_json()


def test_explicit_negatives_are_counted_by_day_type_and_user() -> None:
    log = [Event(1, 1, _DAY), Event(1, 2, 2 * _DAY), Event(1, 3, 2 * _DAY, event=1), Event(1, 3, 5 * _DAY, event=1)]
    log += [Event(2, 1, _DAY), Event(2, 2, 3 * _DAY)]
    rules = PairRules(negative_events=("skip",))
    kept = kept_of(Case(log, [1, 2, 3], None, rules, Cuts(), None, 0, pa.int64(), num_types=1))
    assert (kept.days, kept.undated, kept.types) == ({1: 2, 2: 2, 3: 1, 5: 1}, 0, (4, 2))
    assert kept.users.to_json() == Histogram.of(np.array([4, 2])).to_json()


def check_targets(case: Case) -> None:
    """Histories and times of each part are those of its targets, one at a time."""
    built, kept = build(case), kept_of(case)
    for part in PARTS:
        listed = packed(built.table, part, case.rules)
        found = [naive_targets(row, case.rules, held_out=part != "train") for row in listed]
        lengths = [length for targets in found for length in targets.values()]
        assert kept.history[part].number == built.num_pairs[part] == len(lengths)
        assert kept.history[part].total == sum(lengths)
        times = [row.times_ms[place] for row, targets in zip(listed, found, strict=True) for place in targets]
        span = kept.spans.get(part)
        assert (span and (span.first_ms, span.last_ms)) == ((min(times), max(times)) if times else None)


@few_cases
@given(cases().map(in_days))
def test_histories_and_times_are_those_of_the_targets(case: Case) -> None:
    check_targets(case)


@few_cases
@given(cases().map(in_days))
def test_held_out_targets_are_counted_by_item(case: Case) -> None:
    built = build(case)
    table = count_items(built)
    for part in PARTS[1:]:
        naive: Counter[int] = Counter()
        for row in packed(built.table, part, case.rules):
            naive.update(row.items[place] for place in naive_targets(row, case.rules, held_out=True))
        found = dict(zip(table["item"].to_pylist(), table[part].to_pylist(), strict=True))
        assert {item: count for item, count in found.items() if count} == naive


@few_cases
@given(cases().map(in_days), st.integers(1, 4), st.randoms(use_true_random=False))
def test_buckets_in_any_order_make_the_whole(case: Case, num_buckets: int, shuffled: Any) -> None:
    rare = expected_of(case).rare
    users = sorted({event.user for event in case.log}, key=str)
    parts = [
        [event for event in case.log if users.index(event.user) % num_buckets == bucket]
        for bucket in range(num_buckets)
    ]
    sketches = [Kept.from_json(json.loads(json.dumps(kept_of(case._replace(log=p), rare).to_json()))) for p in parts]
    shuffled.shuffle(sketches)
    assert Kept.merged(sketches).to_json() == kept_of(case, rare).to_json()


@pytest.mark.parametrize(
    "split",
    [
        TimeSplit(kind="time"),
        ColdUsers(kind="cold_users", val_share=0.4, test_share=0.4),
        ColdItems(kind="cold_items", val_share=0.3, test_share=0.3),
        LeaveLastN(kind="leave_last_n", num_val=2, num_test=2),
    ],
)
def test_every_split_holds_something_out_and_counts_it_once(split: Any) -> None:
    log = [
        Event(user, (user + 7 * moment) % 40, moment * _EIGHT_HOURS) for user in range(20) for moment in range(1, 10)
    ]
    cuts = Cuts(5 * _EIGHT_HOURS, 7 * _EIGHT_HOURS)
    case = Case(log, list(range(40)), None, PairRules(split=split), cuts, None, 0, pa.int64())
    built, kept = build(case), kept_of(case)
    assert min(built.num_pairs.values()) > 0
    assert sum(kept.types) == built.num_events == sum(kept.days.values())
    assert set(kept.spans) == set(PARTS)
    assert kept.users.total == built.num_events
    check_targets(case)


def test_item_to_item_targets_have_the_anchors_that_they_may_be_drawn_with() -> None:
    log = [Event(1, moment, moment * 60_000) for moment in (1, 2, 3, 20, 21)]
    rules = PairRules.model_validate({"kind": "item_to_item", "session_gap_s": 300, "split": {"kind": "time"}})
    case = Case(log, [1, 2, 3, 20, 21], None, rules, Cuts(2**60, 2**60), None, 0, pa.int64())
    found = build(case).targets["train"]
    assert (found.places.tolist(), found.history_sizes.tolist()) == ([1, 2, 4], [1, 2, 1])


def test_events_of_a_log_without_times_are_undated() -> None:
    log = [Event(1, item, 0) for item in (1, 2, 3)]
    rules = PairRules.model_validate({"history": "others", "split": {"kind": "column"}})
    kept = kept_of(Case(log, [1, 2, 3], None, rules, Cuts(), None, 0, pa.int64()))
    assert (kept.days, kept.undated, kept.spans) == ({}, 3, {})


ROWS: Sequence[dict[str, Any]] = [
    {},
    {"t": _DAY // 1000 + 5},
    {"u": None, "t": 2 * _DAY // 1000},
    {"i": None, "e": "buy"},
    {"t": None},
    {"t": None, "u": None, "e": "buy"},
    {"t": 2**60, "e": "hover"},
    {"e": None},
    {"e": None, "i": 99},
    {"e": "<script>"},
    {"w": None},
    {"s": None, "i": 99},
]


def read(changes: Sequence[dict[str, Any]]) -> Rows:
    table = rows(*changes) if changes else NUMBER.empty_table()
    return Rows.from_json(json.loads(json.dumps(Rows.of(FULL, *FULL.clean(table)).to_json())))


def test_rows_are_counted_good_and_bad() -> None:
    found = read(ROWS)
    assert (found.days, found.undated) == ({0: 7, 1: 1, 2: 1}, 3)
    assert (found.types, found.unnamed, found.unknown) == ((6, 2), 2, {"<script>": 1, "hover": 1})
    nulls = {"user": 2, "item": 1, "time": 2, "event": 2, "weight": 1, "split": 1}
    assert found.nulls == {role: [count, len(ROWS)] for role, count in nulls.items()}


@few_cases
@given(st.lists(st.sampled_from(ROWS), max_size=30), st.lists(st.integers(0, 30)), st.randoms(use_true_random=False))
def test_fragments_in_any_order_make_the_whole(changes: list[dict[str, Any]], cuts: list[int], shuffled: Any) -> None:
    bounds = sorted([0, *cuts, 30])
    parts = [read(changes[start:stop]) for start, stop in pairwise(bounds)]
    shuffled.shuffle(parts)
    half = len(parts) // 2
    whole = Rows.merged([Rows.merged(parts[:half]), *parts[half:]]) if half else Rows.merged(parts)
    assert whole.to_json() == read(changes).to_json()
    assert sum(whole.types) + whole.unnamed + sum(whole.unknown.values()) == len(changes)
    assert sum(whole.days.values()) + whole.undated == len(changes)


@few_cases
@given(st.lists(st.integers(0, 300), min_size=100, max_size=200), st.randoms(use_true_random=False))
def test_of_many_unknown_names_the_first_are_exact_and_the_rest_a_sum(numbers: list[int], shuffled: Any) -> None:
    names = [f"type {number:03d} é{'x' * (number % 2) * 200}" for number in numbers]
    shuffled.shuffle(names)
    parts = [read([{"e": name} for name in names[start::3]]) for start in range(3)]
    merged = Rows.merged([parts[1], Rows.merged([parts[2], parts[0]])])
    counts = Counter(name[:100] for name in names)
    first = sorted(counts)[:50]
    assert merged.unknown == {name: counts[name] for name in first}
    assert merged.unknown_rest == len(names) - sum(counts[name] for name in first)


def test_a_log_without_times_and_types_has_neither() -> None:
    bare = cleaner()
    table = rows({}, {"u": None}, {})
    found = Rows.of(bare, *bare.clean(table))
    assert (found.days, found.undated, found.types, found.unknown) == ({}, 3, (3, 0), {})
    assert found.nulls == {"user": [1, 3], "item": [0, 3]}
    both = Rows.merged([found, read(ROWS)])
    assert (both.nulls["user"], both.nulls["time"]) == ([3, 3 + len(ROWS)], [2, len(ROWS)])
