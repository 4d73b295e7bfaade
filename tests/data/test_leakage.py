"""The leakage check against plain Python, and what it says of good outputs that were tampered with."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl import schema
from raycl.config import ColdItems, PairRules
from raycl.data import leakage, sequences
from raycl.data.leakage import Leak
from raycl.data.splits import Cuts
from raycl.data.vocabulary import IdMap
from raycl.errors import RayclError
from tests.data.builders import events_table, ids, many_cases
from tests.data.reference import PARTS, Event, cold_part

Row = tuple[int, int, list[tuple[int, int, int]]]
"""User, first target, and (item, time, event type) of each event."""
Rows = dict[str, list[Row]]

KINDS: dict[str, dict[str, Any]] = {
    "leave_last_out": {"split": {"kind": "leave_last_out"}},
    "leave_last_n": {"split": {"kind": "leave_last_n", "num_val": 2, "num_test": 2}},
    "time": {"split": {"kind": "time"}},
    "cold_users": {"split": {"kind": "cold_users", "val_share": 0.3, "test_share": 0.3}},
    "cold_items": {"split": {"kind": "cold_items", "val_share": 0.2, "test_share": 0.2}},
    "column": {"split": {"kind": "column"}},
    "others": {"split": {"kind": "column"}, "history": "others"},
}
CUTS = Cuts(60_000, 80_000)


def rules(kind: str) -> PairRules:
    return PairRules.model_validate(KINDS[kind])


def good(kind: str) -> Rows:
    """What the kernel makes of a log of 40 users and 60 items."""
    generator = np.random.default_rng(3)
    log = [
        Event(user, item, 1_000 * time, 1.0, event, 2 * (part > 7))
        for user, item, time, event, part in generator.integers(0, [40, 60, 100, 2, 10], (600, 5)).tolist()
    ]
    built = sequences.build(events_table(log), IdMap(ids(list(range(60)))), None, rules(kind), CUTS)
    found: Rows = {}
    for part, table in built.parts.items():
        types = iter(built.event_types[part].tolist())
        found[part] = [
            (
                row["user"],
                row["first_target"],
                [(i, t, next(types)) for i, t in zip(row["items"], row["times_ms"], strict=True)],
            )
            for row in table.to_pylist()
        ]
    return found


def find(rows: Rows, settings: PairRules, cuts: Cuts = CUTS) -> list[Leak]:
    tables, types = {}, {}
    for part, listed in rows.items():
        lists = [[[event[place] for event in events] for _, _, events in listed] for place in (0, 1)]
        columns = [
            [user for user, _, _ in listed],
            [-1] * len(listed),
            [first for _, first, _ in listed],
            lists[0],
            [[1.0] * len(events) for _, _, events in listed],
            lists[1],
        ]
        wanted = schema.sequences(pa.int64())
        tables[part] = pa.Table.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, wanted, strict=True)], schema=wanted
        )
        types[part] = np.array([event[2] for _, _, events in listed for event in events], dtype=np.uint8)
    return leakage.find(tables, types, settings, cuts, 0, pa.array)


def naive(rows: Rows, settings: PairRules, cuts: Cuts) -> Counter[tuple[str, str]]:
    """Cases of each check in each part, a target at a time."""
    found: Counter[tuple[str, str]] = Counter()
    targets = {
        part: [(user, *event) for user, first, events in listed for event in events[first:]]
        for part, listed in rows.items()
    }
    seen = Counter(target for part in PARTS for target in targets[part])
    bounds = {"train": (-np.inf, cuts.val_from_ms), "val": (cuts.val_from_ms, cuts.test_from_ms)}
    for code, part in enumerate(PARTS):
        start, stop = bounds.get(part, (cuts.test_from_ms, np.inf))
        for user, _, time, _ in targets[part]:
            if settings.split.kind == "time":
                found["outside_its_cuts", part] += not start <= time < stop
            for later in PARTS[code + 1 :]:
                meets = [other[2] for other in targets[later] if other[0] == user]
                found[f"{part}_after_{later}", part] += settings.history == "before" and time > min(meets, default=time)
        found["target_of_two_parts", part] += sum(seen[target] > 1 for target in targets[part])
        has_context = any(first for _, first, _ in rows[part])
        for _, first, events in rows[part]:
            for place in range(first, len(events)):
                if settings.history == "others":
                    found["target_in_its_history", part] += has_context and events.count(events[place]) > 1
                    continue
                moment = place
                while moment and events[moment - 1][1] == events[place][1]:
                    moment -= 1
                ahead = any(time >= events[place][1] for _, time, _ in events[:moment])
                found["target_in_its_history", part] += ahead
    return +found


@st.composite
def any_rows(draw: st.DrawFn) -> Rows:
    """Sequences as no kernel makes them: in any order, with events anywhere; sometimes each in order of time."""
    event = st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(0, 1))
    in_order = draw(st.booleans())
    rows: Rows = {}
    for part in PARTS:
        rows[part] = []
        for user in draw(st.lists(st.integers(0, 3), unique=True)):
            events = draw(st.lists(event, max_size=5))
            first = draw(st.integers(0, len(events)))
            rows[part].append((user, first, sorted(events, key=lambda one: one[1]) if in_order else events))
    return rows


@many_cases
@given(
    any_rows(), st.sampled_from(["leave_last_out", "time", "others"]), st.tuples(st.integers(1, 6), st.integers(1, 6))
)
def test_every_case_is_found_and_no_other(rows: Rows, kind: str, moments: tuple[int, int]) -> None:
    val_from_ms, test_from_ms = sorted(moments)
    cuts = Cuts(val_from_ms, test_from_ms)
    found = find(rows, rules(kind), cuts)
    totals: Counter[str] = Counter()
    for (check, _), cases in naive(rows, rules(kind), cuts).items():
        totals[check] += cases
    counted: Counter[str] = Counter()
    for leak in found:
        counted[leak.check] += leak.num_cases
    assert counted == totals


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_output_has_no_leak_and_targets_in_every_part(kind: str) -> None:
    rows = good(kind)
    assert find(rows, rules(kind)) == []
    assert all(len(rows[part]) > 2 for part in PARTS)


def checks(rows: Rows, kind: str) -> set[str]:
    return {leak.check for leak in find(rows, rules(kind))}


def change(rows: Rows, part: str, place: int, event: tuple[int, int, int]) -> int:
    """Put another event at a place of the part's first sequence with two targets; returns its user."""
    user, _, events = next(row for row in rows[part] if len(row[2]) - row[1] > 1)
    events[place] = event
    return user


def shared_user(rows: Rows) -> tuple[Row, Row]:
    """The sequences in training and in test of a user who has both."""
    test = {row[0]: row for row in rows["test"]}
    return next((row, test[row[0]]) for row in rows["train"] if row[0] in test)


@pytest.mark.parametrize("kind", ["leave_last_out", "leave_last_n", "time", "column"])
def test_a_training_target_after_the_users_test_moment_is_caught(kind: str) -> None:
    rows = good(kind)
    (user, _, events), _ = shared_user(rows)
    events[-1] = (events[-1][0], 200_000, events[-1][2])
    assert Leak("train_after_test", 1, user) in find(rows, rules(kind))


@pytest.mark.parametrize("kind", ["leave_last_out", "leave_last_n", "time"])
def test_a_validation_target_after_the_users_test_moment_is_caught(kind: str) -> None:
    rows = good(kind)
    both = next(row for row in rows["val"] if any(row[0] == other[0] for other in rows["test"]))
    both[2][-1] = (both[2][-1][0], 200_000, 0)
    assert Leak("val_after_test", 1, both[0]) in find(rows, rules(kind))


def test_a_training_target_after_the_cut_is_caught_whatever_the_user_has_else() -> None:
    rows = good("time")
    rows["val"], rows["test"] = [], []
    user = change(rows, "train", -1, (0, CUTS.val_from_ms, 0))
    assert find(rows, rules("time")) == [Leak("outside_its_cuts", 1, user)]


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_held_out_target_before_its_cut_is_caught(part: str) -> None:
    rows = good("time")
    row = rows[part][0]
    row[2][row[1]] = (row[2][row[1]][0], 1, 0)
    assert "outside_its_cuts" in checks(rows, "time")


@pytest.mark.parametrize("kind", ["leave_last_out", "time", "cold_users", "cold_items", "column"])
@pytest.mark.parametrize("part", PARTS)
def test_an_event_of_the_future_in_a_history_is_caught(kind: str, part: str) -> None:
    rows = good(kind)
    user, _, events = next(row for row in rows[part] if len(row[2]) > 2 and row[2][0][1] < row[2][-1][1])
    events[0] = (events[0][0], 300_000, events[0][2])
    assert any(leak.check == "target_in_its_history" and leak.user == user for leak in find(rows, rules(kind)))


def test_a_target_among_its_own_context_is_caught_where_there_is_no_time() -> None:
    rows = good("others")
    user, first, events = next(row for row in rows["test"] if row[1] > 0)
    events[0] = events[first]
    assert Leak("target_in_its_history", 1, user) in find(rows, rules("others"))


@pytest.mark.parametrize("kind", ["leave_last_out", "leave_last_n", "time", "column", "others"])
def test_an_event_that_is_a_target_of_two_parts_is_caught(kind: str) -> None:
    rows = good(kind)
    (user, _, events), (_, first, held_out) = shared_user(rows)
    events[-1] = held_out[first]
    assert [leak for leak in find(rows, rules(kind)) if leak.check == "target_of_two_parts"] == [
        Leak("target_of_two_parts", 1, user),
        Leak("target_of_two_parts", 1, user),
    ]


@pytest.mark.parametrize("kind", ["leave_last_out", "others"])
def test_the_same_moment_and_item_with_another_event_type_is_another_event(kind: str) -> None:
    rows = good(kind)
    (_, _, events), (_, first, held_out) = shared_user(rows)
    item, time, event = held_out[first]
    events[-1] = (item, time, 1 - event)
    assert "target_of_two_parts" not in checks(rows, kind)


def test_a_cold_user_in_training_is_caught() -> None:
    rows = good("cold_users")
    stray = rows["test"][0]
    rows["train"].append((stray[0], 0, stray[2][: stray[1]]))
    assert find(rows, rules("cold_users")) == [Leak("cold_user_in_train", stray[1], stray[0])]


@pytest.mark.parametrize("place", [0, -1])
def test_a_cold_item_in_training_is_caught_as_history_and_as_target(place: int) -> None:
    settings = rules("cold_items")
    assert isinstance(settings.split, ColdItems)
    cold = next(item for item in range(60) if cold_part(item, settings.split, 0) == 2)
    rows = good("cold_items")
    user, _, events = next(row for row in rows["train"] if len(row[2]) > 2)
    events[place] = (cold, *events[place][1:])
    assert find(rows, settings) == [Leak("cold_item_in_train", 1, user)]


def test_a_cold_item_behind_a_held_out_target_is_caught() -> None:
    rows = good("cold_items")
    user, first, events = next(row for row in rows["val"] if row[1] > 0)
    events[0] = (events[first][0], *events[0][1:])
    assert Leak("item_of_another_part_in_val", 1, user) in find(rows, rules("cold_items"))


def test_a_leak_is_an_error_that_names_check_bucket_cases_and_a_user() -> None:
    leakage.require_none([], 3)
    leaks = [Leak("train_after_test", 12, "u7"), Leak("target_in_its_history", 1, "u8")]
    with pytest.raises(
        RayclError, match=r"leakage check train_after_test failed in bucket 3: 12 cases, one of them of user 'u7'"
    ):
        leakage.require_none(leaks, 3)
