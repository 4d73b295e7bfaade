"""The rules on sorted events, on logs by hand, and against plain Python where windows chain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.config import PairRules, UserRate
from raycl.data import rules, sequences
from raycl.data.id_map import IdMap
from raycl.data.rules import Events
from raycl.data.splits import Cuts
from tests.data.builders import events_table, ids, many_cases, packed_parts
from tests.data.reference import Event


def sorted_events(log: list[tuple[int, int, int, int]]) -> Events:
    """Events of (user, time, item, event type), sorted."""
    columns = np.array(sorted(log), dtype=np.int64).reshape(-1, 4).T
    size = len(log)
    return Events(
        columns[0],
        columns[2].astype(np.int32),
        columns[1],
        np.ones(size, dtype=np.float32),
        columns[3].astype(np.uint8),
        np.zeros(size, dtype=np.int8),
    )


def dropped(log: list[Event], **settings: object) -> dict[str, int]:
    chosen = PairRules.model_validate({"min_user_events": 1} | settings)
    return sequences.build(events_table(log), IdMap(ids(list(range(10)))), None, chosen, Cuts()).dropped_rows


LOG = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 40).map(lambda tick: 250 * tick), st.integers(0, 2), st.integers(0, 1)),
    max_size=60,
    unique=True,
)


@many_cases
@given(LOG, st.integers(1, 12), st.booleans())
def test_repeats_are_those_of_a_walk_through_each_users_events(
    log: list[tuple[int, int, int, int]], window_s: int, large: bool
) -> None:
    last: dict[tuple[int, int, int], int] = {}
    expected = []
    for user, time, item, event in sorted(log):
        kind = (user, item, event)
        repeated = kind in last and time - last[kind] < 1_000 * window_s
        expected.append(repeated)
        if not repeated:
            last[kind] = time
    events = sorted_events(log)
    if large:  # so that user, item and type do not fit one integer
        events.user = events.user * 2**40
        events.item = events.item + np.int32(2**30)
    assert rules.repeats(events, window_s).tolist() == expected


@pytest.mark.parametrize("num_events", [1, 2, 3, 1_000, 5_000])
def test_a_long_chain_of_repeats_keeps_one_event_a_window(num_events: int) -> None:
    events = sorted_events([(0, 400 * tick, 1, 0) for tick in range(num_events)])
    assert np.flatnonzero(~rules.repeats(events, 1)).tolist() == list(range(0, num_events, 3))


def test_an_event_at_the_end_of_the_window_is_kept_and_opens_the_next() -> None:
    log = [Event(1, 1, 1_000), Event(1, 1, 2_999), Event(1, 1, 3_000), Event(1, 1, 4_500), Event(1, 1, 5_000)]
    assert dropped(log, repeat_window_s=2) == {"repeat": 2}
    assert dropped(log) == {}


def test_another_user_item_or_type_is_no_repeat() -> None:
    log = [Event(1, 1, 1_000), Event(2, 1, 1_001), Event(1, 2, 1_002), Event(1, 1, 1_003, event=1), Event(1, 1, 1_004)]
    assert dropped(log, repeat_window_s=60) == {"repeat": 1}


def test_a_user_is_a_robot_with_more_events_than_the_rate_in_a_window_that_leaves_its_end_out() -> None:
    rate = {"events": 2, "window_s": 1}
    slow = [Event(1, item, time) for item, time in enumerate([1_000, 1_500, 2_000, 2_500, 3_000])]
    fast = [Event(2, item, time) for item, time in enumerate([1_000, 5_000, 5_500, 5_999, 9_000])]
    assert dropped(slow + fast, max_user_rate=rate) == {"robot_user": 5}
    assert dropped(slow + fast, max_user_rate=rate | {"events": 3}) == {}


def test_events_of_one_moment_count_towards_the_rate_and_duplicates_do_not() -> None:
    log = [Event(1, item, 1_000) for item in (1, 2, 2, 2)]
    assert dropped(log, max_user_rate={"events": 2, "window_s": 1}) == {"duplicate": 2}
    assert dropped(log, max_user_rate={"events": 1, "window_s": 1}) == {"duplicate": 2, "robot_user": 2}


def test_a_robot_is_told_before_its_repeats_are_dropped() -> None:
    log = [Event(1, 1, 1_000 + tick) for tick in range(5)]
    settings = {"max_user_rate": {"events": 4, "window_s": 1}, "repeat_window_s": 60}
    assert dropped(log, **settings) == {"robot_user": 5}


@many_cases
@given(LOG, st.integers(1, 6), st.integers(1, 5))
def test_robots_are_those_with_a_window_that_holds_too_many(
    log: list[tuple[int, int, int, int]], most: int, window_s: int
) -> None:
    robots = {
        user
        for user, start, _, _ in log
        if sum(other == user and 0 <= time - start < 1_000 * window_s for other, time, _, _ in log) > most
    }
    found = rules.faster_than(sorted_events(log), UserRate(events=most, window_s=window_s))
    assert found.tolist() == [user in robots for user, *_ in sorted(log)]


def test_only_the_newest_events_are_kept_and_none_that_is_held_out_is_cut() -> None:
    log = [Event(1, item, 1_000 * item) for item in range(1, 8)] + [Event(2, 1, 1), Event(2, 2, 2)]
    chosen = PairRules.model_validate({"keep_user_events": 2, "split": {"kind": "leave_last_n", "num_test": 2}})
    found = sequences.build(events_table(log), IdMap(ids(list(range(10)))), None, chosen, Cuts())
    assert found.dropped_rows == {"over_cap": 2}
    parts = packed_parts(found)
    assert [row.items for row in parts["train"]] == [(3, 4), (1, 2)]
    assert [row.items for row in parts["val"]] == [(3, 4, 5)]
    assert [row.items for row in parts["test"]] == [(3, 4, 5, 6, 7)]


def test_users_are_measured_before_the_cap() -> None:
    log = [Event(1, item, item) for item in range(1, 6)]
    assert dropped(log, keep_user_events=1, min_user_events=5) == {"over_cap": 2}
