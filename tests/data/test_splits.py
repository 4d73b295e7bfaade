"""Splits by users, by items and by the last few events, on logs by hand, and the cuts of a split by time.

``test_sequences`` holds every split against the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raycl.config import ColdItems, ColdUsers, PairRules
from raycl.data import sequences
from raycl.data.id_map import IdMap
from raycl.data.packed import Sequences
from raycl.data.sequences import Built
from raycl.data.splits import TEST, TRAIN, VAL, Cuts, cold_parts, cut_times, quantiles
from tests.data import reference
from tests.data.builders import events_table, ids, packed_parts, trained
from tests.data.reference import PARTS, Event

USERS = ColdUsers(kind="cold_users", val_share=0.3, test_share=0.2)
ITEMS = ColdItems(kind="cold_items", val_share=0.3, test_share=0.2)


def build(log: list[Event], split: Any, seed: int = 0, **settings: Any) -> Built:
    chosen = PairRules.model_validate({"split": split} | settings)
    return sequences.build(events_table(log), IdMap(ids(list(range(100)))), None, chosen, Cuts(), seed=seed)


def of_part(split: ColdUsers | ColdItems, part: int, count: int) -> list[int]:
    """The first numbers whose hash puts them into the part."""
    return [raw for raw in range(100) if reference.cold_part(raw, split, 0) == part][:count]


@pytest.mark.parametrize("split", [USERS, ITEMS])
@pytest.mark.parametrize(
    "raw", [pa.array(range(20_000)), pa.array([f"id{n}" for n in range(20_000)], pa.large_string())]
)
def test_about_the_shares_that_were_asked_for_are_cold(split: ColdUsers | ColdItems, raw: Any) -> None:
    found = cold_parts(raw, split, 7)
    assert [(found == part).mean() for part in (TRAIN, VAL, TEST)] == pytest.approx([0.5, 0.3, 0.2], abs=0.015)


def test_who_is_cold_depends_on_the_id_and_the_seed_alone() -> None:
    everybody = pa.array(range(1_000))
    found = cold_parts(everybody, USERS, 1)
    assert cold_parts(everybody.slice(400, 10), USERS, 1).tolist() == found[400:410].tolist()
    for other in (cold_parts(everybody, USERS, 2), cold_parts(everybody, ITEMS, 1)):
        assert 0.1 < np.mean((found != TRAIN) & (other != TRAIN)) < 0.4


def test_a_cold_users_last_event_is_the_target_and_the_earlier_ones_its_context() -> None:
    (warm,), (val,), (test,) = (of_part(USERS, part, 1) for part in (TRAIN, VAL, TEST))
    found = build([Event(user, item, 10 * item) for user in (warm, val, test) for item in (1, 2, 3)], USERS)
    rows = packed_parts(found)
    assert {part: [(row.user, row.first_target, row.items) for row in rows[part]] for part in PARTS} == {
        "train": [(warm, 0, (1, 2, 3))],
        "val": [(val, 2, (1, 2, 3))],
        "test": [(test, 2, (1, 2, 3))],
    }
    assert (found.dropped_rows, found.num_events) == ({}, 9)
    assert sum(trained(found, 100)[0]) == 3


def test_the_context_of_a_cold_user_is_capped_like_training() -> None:
    (cold,) = of_part(USERS, TEST, 1)
    found = build([Event(cold, item, 10 * item) for item in range(1, 6)], USERS, keep_user_events=2)
    assert found.dropped_rows == {"over_cap": 2}
    assert packed_parts(found)["test"][0].items == (3, 4, 5)


def test_cold_items_are_targets_with_warm_items_behind_them() -> None:
    (a, b, c), (val,), (test,) = of_part(ITEMS, TRAIN, 3), of_part(ITEMS, VAL, 1), of_part(ITEMS, TEST, 1)
    found = build([Event(1, item, 10 * place) for place, item in enumerate([a, b, val, test, c], start=1)], ITEMS)
    assert found.dropped_rows == {"after_held_out": 1}
    rows = packed_parts(found, PairRules(split=ITEMS))
    assert {part: [(row.first_target, row.items) for row in rows[part]] for part in PARTS} == {
        "train": [(0, (a, b))],
        "val": [(2, (a, b, val))],
        "test": [(2, (a, b, test))],
    }
    counts, _ = trained(found, 100)
    assert [counts[item] for item in (val, test, c)] == [0, 0, 0]


def test_a_cold_target_does_not_count_as_history_of_the_next() -> None:
    (warm,), cold = of_part(ITEMS, TRAIN, 1), of_part(ITEMS, TEST, 3)
    alone = build([Event(1, item, 10 * place) for place, item in enumerate(cold, start=1)], ITEMS)
    assert (len(packed_parts(alone)["test"]), alone.num_pairs["test"]) == (1, 0)
    behind = build([Event(1, item, 10 * place) for place, item in enumerate([warm, *cold], start=1)], ITEMS)
    assert behind.num_pairs["test"] == 3
    states = Sequences.from_table(behind.table, "test").states(PairRules(split=ITEMS, max_history=3), "test")
    assert states.tolist() == [[warm, -1, -1]]


def test_without_cold_items_all_is_training() -> None:
    warm = of_part(ITEMS, TRAIN, 4)
    found = build([Event(1, item, 10 * place) for place, item in enumerate(warm, start=1)], ITEMS)
    assert [len(rows) for rows in packed_parts(found).values()] == [1, 0, 0]


@pytest.mark.parametrize(
    ("num_val", "num_test", "sizes"), [(2, 1, [2, 2, 1]), (0, 3, [2, 0, 3]), (3, 0, [2, 3, 0]), (2, 3, [5, 0, 0])]
)
def test_the_last_few_events_are_held_out_and_short_users_stay_in_training(
    num_val: int, num_test: int, sizes: list[int]
) -> None:
    split = {"kind": "leave_last_n", "num_val": num_val, "num_test": num_test}
    rows = packed_parts(build([Event(1, item, item) for item in range(5)], split))
    assert [sum(len(row.items) - row.first_target for row in rows[part]) for part in PARTS] == sizes
    held_out = [item for part in ("val", "test") for row in rows[part] for item in row.items[row.first_target :]]
    assert held_out == list(range(sizes[0], 5))


def test_leaving_one_of_each_out_is_leaving_the_last_out() -> None:
    log = [Event(user, item, item) for user in range(6) for item in range(user)]
    one_of_each = build(log, {"kind": "leave_last_n", "num_val": 1, "num_test": 1})
    assert packed_parts(one_of_each) == packed_parts(build(log, {"kind": "leave_last_out"}))


@pytest.mark.parametrize("size", [1, 2, 1_024, 1_025, 5_000])
def test_a_sketch_is_evenly_spaced_order_statistics(size: int) -> None:
    times = np.random.default_rng(size).integers(0, 1_000, size)
    ordered = np.sort(times)
    places = np.linspace(0, size - 1, min(size, 1_024)).astype(int)
    assert quantiles(times) == ordered[places].tolist()


def test_a_fragment_without_events_has_no_sketch() -> None:
    assert quantiles(np.zeros(0, dtype=np.int64)) == []


@pytest.mark.parametrize("num_fragments", [1, 3, 10])
def test_cuts_leave_the_shares_that_were_asked_for(num_fragments: int) -> None:
    times = np.random.default_rng(0).permutation(100_000).astype(np.int64)
    pieces = np.split(times, np.sort(np.random.default_rng(1).integers(0, 100_000, num_fragments - 1)))
    cuts = cut_times([(len(piece), quantiles(piece)) for piece in [*pieces, times[:0]]], 0.2, 0.1)
    assert (times >= cuts.test_from_ms).mean() == pytest.approx(0.1, abs=2e-3)
    assert (times >= cuts.val_from_ms).mean() == pytest.approx(0.3, abs=2e-3)


def test_a_fragment_counts_by_its_rows_and_not_by_its_sketch() -> None:
    early, late = np.arange(90_000), np.arange(90_000, 100_000)
    cuts = cut_times([(len(part), quantiles(part)) for part in (early, late)], 0.05, 0.05)
    assert cuts.val_from_ms == pytest.approx(90_000, abs=200)
    assert cuts.test_from_ms == pytest.approx(95_000, abs=200)


def test_a_log_without_events_has_no_cuts() -> None:
    assert cut_times([(0, []), (0, [])], 0.1, 0.1) == Cuts()


def test_equal_times_fall_on_one_side_of_a_cut() -> None:
    cuts = cut_times([(4, quantiles(np.array([1, 5, 5, 5])))], 0.25, 0.25)
    assert cuts == Cuts(5, 5)
