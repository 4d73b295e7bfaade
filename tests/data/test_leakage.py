"""The leakage check against plain Python, and what it says of good outputs that were tampered with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl import schema
from raycl.config import ColdItems, PairRules
from raycl.data import leakage, sequences
from raycl.data.id_map import IdMap
from raycl.data.leakage import Leak, Written
from raycl.data.packed import Sequences
from raycl.data.splits import Cuts
from raycl.errors import RayclError
from tests.data.builders import events_table, ids, many_cases
from tests.data.reference import PARTS, Event, cold_part

Event3 = tuple[int, int, int]
"""Item, time and event type."""


@dataclass
class Row:
    """One user's events, and where the targets of training, validation and test begin."""

    user: int
    bounds: list[int]
    events: list[Event3]

    def span(self, part: str) -> range:
        ends = [*self.bounds, len(self.events)]
        return range(ends[PARTS.index(part)], ends[PARTS.index(part) + 1])


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


def good(kind: str) -> list[Row]:
    """What the kernel makes of a log of 40 users and 60 items."""
    generator = np.random.default_rng(3)
    log = [
        Event(user, item, 1_000 * time, 1.0, event, 2 * (part > 7))
        for user, item, time, event, part in generator.integers(0, [40, 60, 100, 2, 10], (600, 5)).tolist()
    ]
    built = sequences.build(events_table(log), IdMap(ids(list(range(60)))), None, rules(kind), CUTS)
    types = iter(built.event_types.tolist())
    return [
        Row(
            row["user"],
            [row[name] for name in schema.BOUNDS],
            [(i, t, next(types)) for i, t in zip(row["items"], row["times_ms"], strict=True)],
        )
        for row in built.table.to_pylist()
    ]


def find(rows: list[Row], settings: PairRules, cuts: Cuts = CUTS) -> list[Leak]:
    columns = [
        [row.user for row in rows],
        [-1] * len(rows),
        *([row.bounds[place] for row in rows] for place in range(3)),
        [[event[0] for event in row.events] for row in rows],
        [[1.0] * len(row.events) for row in rows],
        [[event[1] for event in row.events] for row in rows],
    ]
    wanted = schema.sequences(pa.int64())
    arrays = [pa.array(column, field.type) for column, field in zip(columns, wanted, strict=True)]
    types = np.array([event[2] for row in rows for event in row.events], dtype=np.uint8)
    packed = Sequences.from_table(pa.Table.from_arrays(arrays, schema=wanted))
    return leakage.find(leakage.Written(packed, arrays[0], types), settings, cuts, 0, pa.array)


def naive(rows: list[Row], settings: PairRules, cuts: Cuts) -> Counter[str]:
    """Cases of each check, a target at a time."""
    found: Counter[str] = Counter()
    limits = [-np.inf, cuts.val_from_ms, cuts.test_from_ms, np.inf]
    for row in rows:
        targets = [(part, place) for part in PARTS for place in row.span(part)]
        for part, place in targets:
            item, time, event = row.events[place]
            code = PARTS.index(part)
            if settings.split.kind == "time":
                found["outside_its_cuts"] += not limits[code] <= time < limits[code + 1]
            found["target_of_two_parts"] += sum(row.events[other] == row.events[place] for _, other in targets) > 1
            if settings.history == "others":
                found["target_in_its_history"] += (item, time, event) in row.events[: row.span(part).start]
                continue
            for later in PARTS[code + 1 :]:
                meets = [row.events[other][1] for other in row.span(later)]
                found[f"{part}_after_{later}"] += time > min(meets, default=time)
            moment = place
            while moment and row.events[moment - 1][1] == time:
                moment -= 1
            found["target_in_its_history"] += any(other >= time for _, other, _ in row.events[:moment])
    return +found


@st.composite
def any_rows(draw: st.DrawFn) -> list[Row]:
    """Sequences as no kernel makes them: in any order, with events anywhere; sometimes each in order of time."""
    event = st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(0, 1))
    in_order = draw(st.booleans())
    rows = []
    for user in draw(st.lists(st.integers(0, 3), unique=True)):
        events = draw(st.lists(event, max_size=7))
        bounds = sorted(draw(st.lists(st.integers(0, len(events)), min_size=3, max_size=3)))
        rows.append(Row(user, bounds, sorted(events, key=lambda one: one[1]) if in_order else events))
    return rows


@many_cases
@given(
    any_rows(), st.sampled_from(["leave_last_out", "time", "others"]), st.tuples(st.integers(1, 6), st.integers(1, 6))
)
def test_every_case_is_found_and_no_other(rows: list[Row], kind: str, moments: tuple[int, int]) -> None:
    val_from_ms, test_from_ms = sorted(moments)
    cuts = Cuts(val_from_ms, test_from_ms)
    counted: Counter[str] = Counter()
    for leak in find(rows, rules(kind), cuts):
        counted[leak.check] += leak.num_cases
    assert counted == naive(rows, rules(kind), cuts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_output_has_no_leak_and_targets_in_every_part(kind: str) -> None:
    rows = good(kind)
    assert find(rows, rules(kind)) == []
    assert all(sum(len(row.span(part)) > 0 for row in rows) > 2 for part in PARTS)


def checks(rows: list[Row], kind: str) -> set[str]:
    return {leak.check for leak in find(rows, rules(kind))}


def with_targets(rows: list[Row], *parts: str) -> Row:
    """The first sequence with two events and a target in each of these parts."""
    return next(row for row in rows if len(row.events) > 2 and all(row.span(part) for part in parts))


def change(row: Row, place: int, event: Event3) -> None:
    row.events[place] = event


@pytest.mark.parametrize(
    ("part", "later", "kind"),
    [
        *(("train", "test", kind) for kind in ("leave_last_out", "leave_last_n", "time", "column")),
        *(("val", "test", kind) for kind in ("leave_last_out", "leave_last_n", "time")),
    ],
)
def test_a_target_after_the_users_first_of_a_later_part_is_caught(part: str, later: str, kind: str) -> None:
    rows = good(kind)
    row = with_targets(rows, part, later)
    place = row.span(part)[-1]
    change(row, place, (row.events[place][0], 200_000, row.events[place][2]))
    assert Leak(f"{part}_after_{later}", 1, row.user) in find(rows, rules(kind))


def test_a_training_target_after_the_cut_is_caught_whatever_the_user_has_else() -> None:
    rows = good("time")
    row = with_targets(rows, "train")
    row.events, row.bounds = row.events[: row.bounds[1]], [0, row.bounds[1], row.bounds[1]]
    change(row, -1, (0, CUTS.val_from_ms, 0))
    assert find(rows, rules("time")) == [Leak("outside_its_cuts", 1, row.user)]


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_held_out_target_before_its_cut_is_caught(part: str) -> None:
    rows = good("time")
    row = with_targets(rows, part)
    place = row.span(part)[0]
    change(row, place, (row.events[place][0], 1, 0))
    assert "outside_its_cuts" in checks(rows, "time")


@pytest.mark.parametrize("kind", ["leave_last_out", "time", "cold_users", "cold_items", "column"])
@pytest.mark.parametrize("part", PARTS)
def test_an_event_of_the_future_in_a_history_is_caught(kind: str, part: str) -> None:
    rows = good(kind)
    row = next(row for row in rows if row.span(part) and row.span(part)[-1] > 0)
    change(row, 0, (row.events[0][0], 300_000, row.events[0][2]))
    assert any(leak.check == "target_in_its_history" and leak.user == row.user for leak in find(rows, rules(kind)))


def test_a_target_among_its_own_context_is_caught_where_there_is_no_time() -> None:
    rows = good("others")
    row = with_targets(rows, "train", "test")
    change(row, 0, row.events[row.span("test")[0]])
    assert Leak("target_in_its_history", 1, row.user) in find(rows, rules("others"))


@pytest.mark.parametrize("kind", ["leave_last_out", "leave_last_n", "time", "column", "others"])
def test_an_event_that_is_a_target_of_two_parts_is_caught(kind: str) -> None:
    rows = good(kind)
    row = with_targets(rows, "train", "test")
    change(row, row.span("train")[-1], row.events[row.span("test")[0]])
    assert Leak("target_of_two_parts", 2, row.user) in find(rows, rules(kind))


@pytest.mark.parametrize("kind", ["leave_last_out", "others"])
def test_the_same_moment_and_item_with_another_event_type_is_another_event(kind: str) -> None:
    rows = good(kind)
    row = with_targets(rows, "train", "test")
    item, time, event = row.events[row.span("test")[0]]
    change(row, row.span("train")[-1], (item, time, 1 - event))
    assert "target_of_two_parts" not in checks(rows, kind)


def test_a_cold_user_in_training_is_caught() -> None:
    rows = good("cold_users")
    row = next(row for row in rows if row.bounds[0] > 0)
    row.bounds[0] = 0
    assert find(rows, rules("cold_users")) == [Leak("cold_user_in_train", row.bounds[1], row.user)]


@pytest.mark.parametrize("place", [0, -1])
def test_a_cold_item_in_training_is_caught(place: int) -> None:
    settings = rules("cold_items")
    assert isinstance(settings.split, ColdItems)
    cold = next(item for item in range(60) if cold_part(item, settings.split, 0) == 2)
    rows = good("cold_items")
    row = next(row for row in rows if len(row.span("train")) > 2)
    at = row.span("train")[place]
    change(row, at, (cold, *row.events[at][1:]))
    assert find(rows, settings) == [Leak("cold_item_in_train", 1, row.user)]


@pytest.mark.parametrize("part", ["val", "test"])
def test_an_item_of_another_part_among_held_out_targets_is_caught(part: str) -> None:
    rows = good("cold_items")
    row = with_targets(rows, part, "train")
    place = row.span(part)[0]
    change(row, place, (row.events[0][0], *row.events[place][1:]))
    assert Leak(f"item_of_another_part_in_{part}", 1, row.user) in find(rows, rules("cold_items"))


def test_a_leak_is_an_error_that_names_check_bucket_cases_and_a_user() -> None:
    leakage.require_none([], 3)
    leaks = [Leak("train_after_test", 12, "u7"), Leak("target_in_its_history", 1, "u8")]
    with pytest.raises(
        RayclError, match=r"leakage check train_after_test failed in bucket 3: 12 cases, one of them of user 'u7'"
    ):
        leakage.require_none(leaks, 3)


def with_negatives(split: dict[str, Any]) -> tuple[Written, PairRules]:
    """What the kernel makes of a log of 40 users with one explicit negative in three."""
    generator = np.random.default_rng(3)
    log = [
        Event(user, item, 1_000 * time, 1.0, int(event == 0), 2 * (part > 7))
        for user, item, time, event, part in generator.integers(0, [40, 60, 100, 3, 10], (600, 5)).tolist()
    ]
    chosen = PairRules.model_validate({"split": split, "negative_events": ["skip"]})
    built = sequences.build(events_table(log), IdMap(ids(list(range(60)))), None, chosen, CUTS, num_types=1)
    return Written(built.packed, built.table["user"].combine_chunks(), built.event_types, built.negatives), chosen


def leaks_of(found: Written, chosen: PairRules) -> list[Leak]:
    return leakage.find(found, chosen, CUTS, 0, pa.array)


@pytest.mark.parametrize("kind", KINDS)
def test_explicit_negatives_that_the_kernel_keeps_are_no_leak(kind: str) -> None:
    found, chosen = with_negatives(KINDS[kind]["split"])
    assert leaks_of(found, chosen) == []
    assert found.negatives is not None
    assert len(found.negatives) > 100


def test_an_explicit_negative_that_is_older_than_the_one_before_it_is_caught() -> None:
    found, chosen = with_negatives(KINDS["leave_last_out"]["split"])
    negatives = found.packed.negatives
    assert negatives is not None
    user = next(user for user, size in enumerate(np.diff(negatives.offsets)) if size > 1)
    times_ms = negatives.times_ms.copy()
    times_ms[negatives.offsets[user]] = 500_000
    packed = replace(found.packed, negatives=replace(negatives, times_ms=times_ms))
    assert leaks_of(replace(found, packed=packed), chosen) == [
        Leak("negative_out_of_time", 1, found.users[user].as_py())
    ]


@pytest.mark.parametrize("part", [1, 2])
def test_an_explicit_negative_of_a_later_part_is_caught(part: int) -> None:
    found, chosen = with_negatives(KINDS["column"]["split"])
    assert found.negatives is not None
    assert found.packed.negatives is not None
    found.negatives.split[-1] = part
    user = int(found.packed.negatives.owner[-1])
    assert leaks_of(found, chosen) == [Leak("negative_of_later_part", 1, found.users[user].as_py())]


def test_a_cold_item_among_explicit_negatives_is_caught() -> None:
    found, chosen = with_negatives(KINDS["cold_items"]["split"])
    assert isinstance(chosen.split, ColdItems)
    assert found.packed.negatives is not None
    cold = next(item for item in range(60) if cold_part(item, chosen.split, 0) == 1)
    items = found.packed.negatives.items.copy()
    items[0] = cold
    user = int(found.packed.negatives.owner[0])
    packed = replace(found.packed, negatives=replace(found.packed.negatives, items=items))
    leaks = leaks_of(replace(found, packed=packed), chosen)
    assert leaks == [Leak("cold_item_in_negatives", 1, found.users[user].as_py())]
