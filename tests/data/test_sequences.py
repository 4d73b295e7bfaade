"""The pair kernel against the reference in plain Python, on logs by hand and by Hypothesis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl import schema
from raycl.config import ColdItems, ColdUsers, ColumnSplit, LeaveLastN, LeaveLastOut, PairRules, TimeSplit, UserRate
from raycl.data import leakage, sequences
from raycl.data.id_map import IdMap
from raycl.data.sequences import Built
from raycl.data.splits import Cuts
from tests.data import reference
from tests.data.builders import CountedItems, events_table, few_cases, ids, many_cases, packed_parts, trained
from tests.data.reference import PARTS, Event, Id

LAST_OUT = LeaveLastOut(kind="leave_last_out")
COLUMN = ColumnSplit(kind="column", hold_out_val=False)
HELD_OUT = ColumnSplit(kind="column")
TRAINED_ON = ColumnSplit(kind="column", train_on_val=True)
BY_TIME = TimeSplit(kind="time")
COLD_USERS = ColdUsers(kind="cold_users", val_share=0.3, test_share=0.3)
COLD_ITEMS = ColdItems(kind="cold_items", val_share=0.3, test_share=0.3)
LAST_FEW = LeaveLastN(kind="leave_last_n", num_val=2, num_test=1)
TIMED = [LAST_OUT, LeaveLastN(kind="leave_last_n", num_val=0, num_test=3), LAST_FEW, BY_TIME, COLD_USERS, COLD_ITEMS]
ANY_SPLIT: st.SearchStrategy[Any] = st.sampled_from([COLUMN, HELD_OUT, TRAINED_ON, *TIMED])

NUMBERS: tuple[list[Id], list[Id]] = ([-(2**40), 0, 3, 20], [-7, 2, 10, 100, 2**62])
TEXTS: tuple[list[Id], list[Id]] = (["", "10", "9", "é"], ["Z", "a", "aa", "ö", "😀"])
CONTEXT: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.none() | st.integers(0, 2),
    pa.float64(): st.none() | st.sampled_from([-1.5, 2.5]),
    pa.bool_(): st.none() | st.booleans(),
    pa.large_string(): st.none() | st.sampled_from(["", "pe", "é"]),
}
NUMBERS_AND_TEXTS = [*NUMBERS[0], *TEXTS[0]]


def rules(**settings: Any) -> PairRules:
    return PairRules.model_validate({"split": LAST_OUT} | settings)


class Case(NamedTuple):
    """A log, and all that shapes its sequences."""

    log: list[Event]
    items: list[Id]
    users: list[Id] | None
    rules: PairRules
    cuts: Cuts
    item_counts: list[int] | None
    seed: int
    kind: pa.DataType
    """Of the ids of users and items."""
    num_types: int = 256
    context: Mapping[str, pa.DataType] = schema.NO_CONTEXT


@st.composite
def cases(draw: st.DrawFn, splits: st.SearchStrategy[Any] = ANY_SPLIT) -> Case:
    """Small logs in which ties, repeats and unknown items are common; some with times that no packed sort can hold."""
    users, items = draw(st.sampled_from([NUMBERS, TEXTS]))
    context = draw(st.sampled_from([{}, {}, {"one": pa.int64()}, {str(kind): kind for kind in CONTEXT}]))
    num_types = draw(st.sampled_from([256, 256, 1]))
    unit = draw(st.sampled_from([1, 1_000, 2**59]))
    event = st.builds(
        Event,
        st.sampled_from(users),
        st.sampled_from(items),
        st.integers(1, 7).map(lambda moment: moment * unit),
        st.sampled_from([0.5, 1.0, 2.0]),
        st.integers(0, 1),
        st.integers(0, 2) if draw(st.booleans()) else st.sampled_from([0, 0, 2]),
        st.tuples(*(CONTEXT[kind] for kind in context.values())),
    )
    moments = sorted(draw(st.tuples(st.integers(0, 8), st.integers(0, 8))))
    rules = PairRules(
        history=draw(st.sampled_from(["before", "others"])),
        min_history=draw(st.integers(0, 3)),
        min_user_events=draw(st.integers(1, 3)),
        min_item_events=draw(st.integers(1, 3)),
        max_user_events=draw(st.sampled_from([4, 8, 100_000])),
        max_user_rate=draw(st.none() | st.builds(UserRate, events=st.integers(1, 5), window_s=st.integers(1, 4))),
        repeat_window_s=draw(st.sampled_from([0, 0, 1, 2, 3, 10**10])),
        core_rounds=draw(st.sampled_from([0, 0, 1, 2, 9])),
        keep_user_events=draw(st.none() | st.integers(1, 6)),
        split=draw(splits),
        negative_events=("skip",) if num_types == 1 else (),
        negative_below=draw(st.sampled_from([None, None, 0.75])),
    )
    known = items[: draw(st.integers(0, len(items)))]
    return Case(
        draw(st.lists(event, min_size=draw(st.sampled_from([0, 15])), max_size=40)),
        known,
        draw(st.sampled_from([None, users[1:3]])),
        rules,
        Cuts(moments[0] * unit, moments[1] * unit),
        draw(st.none() | st.lists(st.integers(0, 4), min_size=len(known), max_size=len(known))),
        draw(st.integers(0, 5) | st.just(2**70)),
        ids(users).type,
        num_types,
        context,
    )


def names_val(case: Case) -> bool:
    """Whether the log names an event validation that may be a target."""
    return any(e.split == 1 and not reference.is_negative(e, case.rules, case.num_types) for e in case.log)


def expected_of(case: Case) -> reference.Expected:
    return reference.build(*case[:7], num_types=case.num_types)


def build(case: Case, rare: set[Id] | None = None) -> Built:
    """``rare``: items out of the iterated core; those of the case's own log where it is left out."""
    rare = expected_of(case).rare if rare is None else rare
    return sequences.build(
        events_table(case.log, case.kind, case.context),
        _items(case),
        None if case.users is None else IdMap(pa.array(case.users, case.kind)),
        case.rules,
        case.cuts,
        seed=case.seed,
        in_core=np.array([item not in rare for item in case.items], dtype=np.bool_) if case.rules.core_rounds else None,
        num_types=case.num_types,
    )


def _items(case: Case) -> IdMap:
    ids = pa.array(case.items, case.kind)
    if case.item_counts is None:
        return IdMap(ids)
    return CountedItems(ids, case.item_counts, case.rules.min_item_events)


def check(case: Case) -> None:
    """The kernel's output is the reference's, and no row is lost."""
    built, expected = build(case), expected_of(case)
    assert packed_parts(built, case.rules) == expected.parts
    assert built.dropped_rows == {reason: rows for reason, rows in expected.dropped.items() if rows}
    assert (built.num_events, built.num_pairs) == (expected.num_events, expected.num_pairs)
    assert built.num_events + sum(built.dropped_rows.values()) == len(case.log)
    rows = range(len(case.items))
    counts = [expected.train_counts[row] for row in rows], [expected.train_targets[row] for row in rows]
    assert trained(built, len(rows)) == counts
    names = pa.array(case.items, case.kind)
    assert (0 if built.negatives is None else len(built.negatives)) == expected.num_negatives
    written = leakage.Written(built.packed, built.table["user"].combine_chunks(), built.event_types, built.negatives)
    assert leakage.find(written, case.rules, case.cuts, case.seed, names.take) == []


@many_cases
@given(cases(st.just(LAST_OUT)))
def test_leave_last_out_is_the_reference(case: Case) -> None:
    check(case)


@many_cases
@given(cases(st.just(BY_TIME)))
def test_a_split_by_time_is_the_reference(case: Case) -> None:
    check(case)


@many_cases
@given(cases(st.just(COLUMN)))
def test_a_split_by_column_is_the_reference(case: Case) -> None:
    check(case)


@many_cases
@given(cases(st.just(HELD_OUT)))
def test_a_held_out_validation_is_the_reference(case: Case) -> None:
    check(case)


@many_cases
@given(cases(st.sampled_from([LAST_FEW, LeaveLastN(kind="leave_last_n", num_val=0, num_test=3)])))
def test_leaving_the_last_few_out_is_the_reference(case: Case) -> None:
    check(case)


@many_cases
@given(cases(st.just(COLD_USERS)))
def test_cold_users_are_the_reference(case: Case) -> None:
    check(case)


@many_cases
@given(cases(st.just(COLD_ITEMS)))
def test_cold_items_are_the_reference(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("split", [COLUMN, HELD_OUT, *TIMED])
@pytest.mark.parametrize(("users", "items"), [NUMBERS, TEXTS])
def test_a_log_of_a_thousand_rows_is_the_reference(split: Any, users: list[Id], items: list[Id]) -> None:
    generator = np.random.default_rng(2)
    everybody: list[Id] = sorted(f"u{number}" if isinstance(users[0], str) else number for number in range(60))
    log = [
        Event(everybody[user], items[item], time, weight / 2, event, 2 * (part > 2))
        for user, item, time, weight, event, part in generator.integers(0, [60, 5, 500, 4, 2, 4], (1_000, 6)).tolist()
    ]
    chosen = rules(
        split=split,
        min_user_events=4,
        max_user_events=25,
        max_user_rate={"events": 3, "window_s": 1},
        repeat_window_s=1,
        keep_user_events=3,
        min_item_events=3,
        min_history=2,
    )
    scaled = [event._replace(time_ms=40 * event.time_ms) for event in log]
    case = Case(scaled, items[:4], everybody[5:], chosen, Cuts(12_000, 16_000), [9, 2, 9, 9], 4, ids(users).type)
    check(case)
    assert {"rare_item", "robot_user", "repeat"} <= set(build(case).dropped_rows)
    capped = case._replace(rules=chosen.model_copy(update={"max_user_rate": None, "keep_user_events": 1}))
    check(capped)
    assert build(capped).dropped_rows["over_cap"] > 4


@many_cases
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(case: Case, chance: Any) -> None:
    shuffled = list(case.log)
    chance.shuffle(shuffled)
    first, second = build(case), build(case._replace(log=shuffled))
    assert packed_parts(first) == packed_parts(second)
    assert (first.dropped_rows, first.num_pairs) == (second.dropped_rows, second.num_pairs)


@few_cases
@given(cases(), st.integers(2, 4))
def test_parts_of_the_users_built_apart_are_those_of_all_users(case: Case, num_parts: int) -> None:
    named = names_val(case)
    together, rare = packed_parts(build(case)), expected_of(case).rare
    apart = []
    for number in range(num_parts):
        mine = [event for event in case.log if NUMBERS_AND_TEXTS.index(event.user) % num_parts == number]
        theirs = case._replace(log=mine, cuts=replace(case.cuts, val_is_named=named))
        apart.append(packed_parts(build(theirs, rare)))
    for part in PARTS:
        assert sorted(row for one in apart for row in one[part]) == together[part]


def built(log: list[Event], settings: PairRules, cuts: Cuts | None = None) -> Built:
    """Build a log whose items are 0 to 9, so that rows of the vocabulary are the items themselves."""
    return sequences.build(events_table(log), IdMap(ids(list(range(10)))), None, settings, cuts or Cuts())


def items_of(found: Built, part: str) -> list[tuple[int, list[int]]]:
    """First target and items of each user."""
    return [(row.first_target, list(row.items)) for row in packed_parts(found)[part]]


def test_the_last_event_is_for_test_and_the_one_before_for_validation() -> None:
    found = built([Event(1, 4, 40), Event(1, 2, 20), Event(1, 3, 30), Event(1, 1, 10)], rules())
    assert items_of(found, "train") == [(0, [1, 2])]
    assert items_of(found, "val") == [(2, [1, 2, 3])]
    assert items_of(found, "test") == [(3, [1, 2, 3, 4])]
    assert found.num_pairs == {"train": 1, "val": 1, "test": 1}


def test_a_user_with_two_events_is_for_training_alone() -> None:
    found = built([Event(1, 1, 10), Event(1, 2, 20)], rules())
    assert (items_of(found, "train"), items_of(found, "val"), items_of(found, "test")) == ([(0, [1, 2])], [], [])


def test_an_item_that_is_only_a_first_event_is_in_training_but_never_a_target() -> None:
    found = built([Event(1, 7, 10), Event(1, 2, 20), Event(2, 7, 10), Event(2, 7, 30)], rules(min_history=1))
    counts, targets = trained(found, 10)
    assert (counts[7], targets[7]) == (3, 1)
    assert (counts[2], targets[2]) == (1, 1)
    assert sum(targets) == found.num_pairs["train"] == 2


def test_events_of_one_moment_are_not_behind_one_another() -> None:
    log = [Event(1, item, 10) for item in range(4)] + [Event(1, 5, 20)]
    one_moment = built(log[:4], rules(min_user_events=1, split=BY_TIME), Cuts(99, 99))
    assert (one_moment.num_pairs["train"], sum(trained(one_moment, 10)[1])) == (0, 0)
    two_moments = built(log, rules(split=BY_TIME, min_history=4), Cuts(99, 99))
    assert (two_moments.num_pairs["train"], trained(two_moments, 10)[1][5]) == (1, 1)


def test_training_events_after_the_users_first_held_out_event_are_dropped_and_counted() -> None:
    log = [Event(1, 9, 10, split=2), *(Event(1, item, 10 * item) for item in (2, 3, 4))]
    log += [
        Event(2, 1, 5),
        Event(2, 2, 6),
        Event(2, 3, 7, split=1),
        Event(2, 4, 7),
        Event(2, 5, 8),
        Event(2, 6, 9, split=2),
    ]
    found = built(log, rules(split=COLUMN))
    assert found.dropped_rows == {"after_held_out": 4, "rare_user": 1}
    assert items_of(found, "train") == [(0, [1, 2, 4])]
    assert items_of(found, "val") == [(3, [1, 2, 4, 3])]
    assert items_of(found, "test") == [(4, [1, 2, 4, 3, 6])]
    assert built(log, rules(split=COLUMN, history="others")).dropped_rows == {}


@many_cases
@given(cases())
def test_no_event_of_a_sequence_is_older_than_the_one_before_it(case: Case) -> None:
    found = packed_parts(build(case._replace(rules=case.rules.model_copy(update={"history": "before"}))))
    assert all(list(row.times_ms) == sorted(row.times_ms) for rows in found.values() for row in rows)


def test_the_last_training_event_is_held_out_where_histories_follow_time() -> None:
    log = [Event(1, item, 10 * item) for item in range(1, 5)] + [Event(1, 9, 90, split=2)]
    found = built(log, rules(split=HELD_OUT))
    assert (items_of(found, "train"), items_of(found, "val")) == ([(0, [1, 2, 3])], [(3, [1, 2, 3, 4])])
    assert found.dropped_rows == {}


def test_a_repeat_of_the_same_event_is_dropped_once() -> None:
    log = [Event(1, 1, 10), Event(1, 1, 10), Event(1, 1, 10, event=1), Event(1, 1, 20), Event(2, 1, 10), Event(2, 2, 9)]
    assert built(log, rules()).dropped_rows == {"duplicate": 1}


def test_of_repeats_with_different_weights_the_lightest_is_kept_in_any_order() -> None:
    log = [Event(1, 1, 10, 3.0), Event(1, 2, 20, 1.0), Event(1, 1, 10, 2.0)]
    for order in (log, log[::-1]):
        (row,) = packed_parts(built(order, rules()))["train"]
        assert row.weights == (2.0, 1.0)


def test_users_with_too_many_or_too_few_events_are_dropped_whole() -> None:
    log = [Event(1, item, item) for item in range(1, 6)] + [Event(2, 1, 1)] + [Event(3, 1, 1), Event(3, 2, 2)]
    found = built(log, rules(max_user_events=4))
    assert found.dropped_rows == {"robot_user": 5, "rare_user": 1}
    assert [row.user for row in packed_parts(found)["train"]] == [3]


def test_repeats_and_rare_items_are_dropped_before_a_user_is_measured() -> None:
    log = [Event(1, 1, 10), Event(1, 1, 10), Event(1, 99, 20)]
    assert built(log, rules()).dropped_rows == {"rare_item": 1, "duplicate": 1, "rare_user": 1}


def test_rare_items_are_told_by_their_counts_in_the_log() -> None:
    log, items = [Event(1, 0, 1), Event(1, 1, 2), Event(1, 2, 3)], CountedItems(ids([0, 1, 2]), [3, 2, 1], 2)
    found = sequences.build(events_table(log), items, None, rules(), Cuts())
    assert found.dropped_rows == {"rare_item": 1}
    assert trained(found, 3)[0] == [1, 1, 0]


def test_a_vocabulary_without_items_drops_every_row() -> None:
    found = sequences.build(events_table([Event(1, 1, 1)]), IdMap(ids([])), None, rules(), Cuts())
    assert (found.dropped_rows, found.num_events) == ({"rare_item": 1}, 0)


@pytest.mark.parametrize("split", [COLUMN, HELD_OUT, *TIMED])
@pytest.mark.parametrize("kind", [pa.int64(), pa.large_string()])
def test_no_rows_make_no_sequences(split: Any, kind: pa.DataType) -> None:
    empty = schema.events(kind, kind).empty_table()
    for events in (empty, pa.table([pa.chunked_array([], field.type) for field in empty.schema], schema=empty.schema)):
        found = sequences.build(events, IdMap(pa.array([], kind)), None, rules(split=split), Cuts())
        assert (found.dropped_rows, found.num_events, sum(found.num_pairs.values())) == ({}, 0, 0)
        assert found.table.equals(schema.sequences(kind).empty_table())


def test_a_cut_belongs_to_what_follows_it() -> None:
    log = [Event(1, item, 10 * item) for item in range(1, 6)]
    found = built(log, rules(split=BY_TIME), Cuts(30, 50))
    assert items_of(found, "train") == [(0, [1, 2])]
    assert items_of(found, "val") == [(2, [1, 2, 3, 4])]
    assert items_of(found, "test") == [(4, [1, 2, 3, 4, 5])]


def test_a_user_who_comes_after_the_cut_has_no_context() -> None:
    found = built([Event(1, 1, 60), Event(1, 2, 70)], rules(split=BY_TIME), Cuts(30, 50))
    assert (items_of(found, "train"), items_of(found, "test")) == ([], [(0, [1, 2])])
    assert found.num_pairs == {"train": 0, "val": 0, "test": 1}


def test_a_part_that_a_column_names_looks_at_earlier_parts_whatever_the_time() -> None:
    log = [Event(1, 1, 30), Event(1, 2, 10, split=2), Event(1, 3, 20), Event(1, 4, 5, split=1)]
    found = built(log, rules(split=COLUMN, history="others"))
    assert items_of(found, "train") == [(0, [3, 1])]
    assert items_of(found, "val") == [(2, [3, 1, 4])]
    assert items_of(found, "test") == [(3, [3, 1, 4, 2])]


def test_one_training_event_of_three_is_held_out_where_the_log_names_no_validation() -> None:
    log = [Event(user, item, item) for user in (1, 2) for item in range(1, user + 2)] + [Event(3, 9, 9, split=2)]
    found = built(log, rules(split=HELD_OUT, history="others", min_user_events=1))
    assert [(row.user, row.first_target, len(row.items)) for row in packed_parts(found)["val"]] == [(2, 2, 3)]
    assert [len(row.items) for row in packed_parts(found)["train"]] == [2, 2]


def test_nothing_is_held_out_where_the_log_names_validation_for_anybody() -> None:
    log = [Event(1, item, item) for item in range(1, 5)]
    settings = rules(split=HELD_OUT, history="others")
    named_elsewhere = built(log, settings, Cuts(val_is_named=True))
    named_here = built([*log, Event(2, 1, 1), Event(2, 2, 2, split=1)], settings)
    assert items_of(named_elsewhere, "val") == []
    assert [row.user for row in packed_parts(named_here)["val"]] == [2]


def test_what_is_named_validation_is_trained_on_where_that_is_asked_for() -> None:
    log = [Event(1, 1, 10), Event(1, 2, 20), Event(1, 3, 30, split=1), Event(1, 4, 40, split=2)]
    found = built([*log, *(Event(2, item, item) for item in range(1, 5))], rules(split=TRAINED_ON))
    assert items_of(found, "train") == [(0, [1, 2, 3]), (0, [1, 2, 3, 4])]
    assert items_of(found, "val") == []
    assert items_of(found, "test") == [(3, [1, 2, 3, 4])]


def test_times_that_no_packed_sort_can_hold_are_sorted_all_the_same() -> None:
    generator = np.random.default_rng(1)
    user = generator.integers(0, 50, 2_000)
    for times in (generator.integers(1, 2**62, 2_000), generator.integers(1, 100, 2_000) * 1_000):
        order = sequences._order_by_user_and_time(user, times)
        expected = sorted(range(2_000), key=lambda row: (user[row], times[row], row))
        assert order.tolist() == expected


def with_negatives(log: list[Event], settings: PairRules, cuts: Cuts | None = None) -> Built:
    """As ``built``, with types from 1 on explicit negatives."""
    chosen = settings.model_copy(update={"negative_events": ("skip",)})
    return sequences.build(events_table(log), IdMap(ids(list(range(10)))), None, chosen, cuts or Cuts(), num_types=1)


def negatives_of(found: Built) -> dict[int, list[tuple[int, int]]]:
    """Item and time of each user's explicit negatives."""
    columns = (found.table[name].to_pylist() for name in ("user", *schema.NEGATIVES[:2]))
    return {user: list(zip(items, times, strict=True)) for user, items, times in zip(*columns, strict=True)}


def test_an_explicit_negative_is_neither_a_target_nor_in_a_history() -> None:
    log = [Event(1, item, 10 * item) for item in range(1, 6)] + [Event(1, 7, 35, event=1), Event(1, 8, 99, event=1)]
    found = with_negatives(log, rules())
    assert items_of(found, "test") == [(4, [1, 2, 3, 4, 5])]
    assert negatives_of(found) == {1: [(7, 35), (8, 99)]}
    assert (found.num_events, found.num_pairs) == (7, {"train": 2, "val": 1, "test": 1})
    counts, targets = trained(found, 10)
    assert (counts[7], targets[8]) == (0, 0)


def test_a_low_weight_is_an_explicit_negative_and_the_bound_itself_is_not() -> None:
    log = [Event(1, item, 10 * item, weight=item / 2) for item in range(1, 8)]
    found = built(log, rules(negative_below=1.5))
    assert items_of(found, "test") == [(4, [3, 4, 5, 6, 7])]
    assert negatives_of(found) == {1: [(1, 10), (2, 20)]}


def test_explicit_negatives_make_a_user_no_less_rare_and_leave_with_a_rare_one() -> None:
    log = [Event(1, 1, 10), *(Event(1, item, 20, event=1) for item in range(3)), Event(2, 5, 5, event=1)]
    found = with_negatives([*log, Event(3, 1, 10), Event(3, 2, 20)], rules())
    assert found.dropped_rows == {"rare_user": 5}
    assert negatives_of(found) == {3: []}


def test_explicit_negatives_go_through_duplicates_robots_and_repeats_as_all_events_do() -> None:
    liked = [Event(1, item, 10_000 * item) for item in range(3)]
    log = [*liked, *[Event(1, 5, 4_000, event=1)] * 2, Event(1, 5, 4_500, event=1), Event(1, 5, 9_000, event=1)]
    found = with_negatives(log, rules(repeat_window_s=1))
    assert found.dropped_rows == {"duplicate": 1, "repeat": 1}
    assert negatives_of(found) == {1: [(5, 4_000), (5, 9_000)]}
    assert with_negatives(log, rules(max_user_events=5)).dropped_rows == {"duplicate": 1, "robot_user": 6}


def test_the_newest_explicit_negatives_are_kept_apart_from_the_newest_events() -> None:
    log = [Event(1, item, 10 * item, event=item % 2) for item in range(10)]
    found = with_negatives(log, rules(keep_user_events=2))
    assert found.dropped_rows == {"over_cap": 1 + 3}
    assert items_of(found, "train") == [(0, [2, 4])]
    assert negatives_of(found) == {1: [(7, 70), (9, 90)]}


def test_an_explicit_negative_of_a_part_that_is_held_out_is_dropped_and_names_no_validation() -> None:
    log = [Event(1, item, 10 * item) for item in range(1, 5)]
    log += [Event(1, 5, 15, event=1), Event(1, 6, 15, event=1, split=1), Event(1, 7, 15, event=1, split=2)]
    for history in ("before", "others"):
        found = with_negatives(log, rules(split=HELD_OUT, history=history))
        assert found.dropped_rows == {"held_out_negative": 2}
        assert negatives_of(found) == {1: [(5, 15)]}
        assert found.num_pairs["val"] == 1  # one is taken from training, since no event but the negative is named so


def test_of_duplicates_that_carry_different_context_the_same_one_is_kept_in_any_order() -> None:
    log = [Event(1, 1, 10, context=(value,)) for value in (None, "lk", "ee", "pe")] + [Event(1, 2, 20, context=(None,))]
    for order in (log, log[::-1]):
        table = events_table(order, context={"country": pa.large_string()})
        found = sequences.build(table, IdMap(ids(list(range(10)))), None, rules(), Cuts())
        assert found.table["context_country"].to_pylist() == [["ee", None]]
        assert found.dropped_rows == {"duplicate": 3}


def test_all_columns_travel_together() -> None:
    log = [Event(1, 3, 30, 0.5), Event(1, 1, 10, 2.0), Event(1, 2, 20, 1.0), Event(1, 0, 40, 4.0)]
    (row,) = packed_parts(built(log, rules()))["test"]
    assert (row.items, row.weights, row.times_ms) == ((1, 2, 3, 0), (2.0, 1.0, 0.5, 4.0), (10, 20, 30, 40))
