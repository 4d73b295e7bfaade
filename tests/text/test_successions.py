"""Items met one after the other in training: beside a slower count, and nothing of what is held out."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raycl.config import PairRules
from raycl.data import sequences
from raycl.data.columns import whole
from raycl.data.id_map import IdMap
from raycl.data.packed import Sequences
from raycl.data.splits import TEST, VAL, Cuts
from raycl.text import successions

NUM_ITEMS = 40
ITEMS = IdMap(pa.array(range(NUM_ITEMS), pa.int64()))


def log(num_users: int = 60, moments: int = 1_000_000, seed: int = 3) -> pa.Table:
    """Random events of ``schema.events``, at distinct times of a user unless there are few ``moments``."""
    drawn = np.random.default_rng(seed)
    rows = num_users * 9
    return pa.table(
        {
            "user": np.arange(rows) % num_users,
            "item": drawn.integers(0, NUM_ITEMS, rows),
            "time_ms": drawn.integers(1, moments, rows) * 1000,
            "event": np.zeros(rows, dtype=np.uint8),
            "split": np.zeros(rows, dtype=np.int8),
        }
    )


def built(events: pa.Table, split: dict[str, Any] | None = None, **rules: Any) -> sequences.Built:
    chosen = PairRules.model_validate({"split": split or {"kind": "leave_last_out"}, **rules})
    return sequences.build(events, ITEMS, None, chosen, Cuts(500_000_000, 700_000_000))


def of(table: pa.Table, seed: int = 0) -> successions.Successions:
    return successions.of(Sequences.from_table(table), table["user"], seed)


def counted(found: successions.Successions) -> Counter[tuple[int, int]]:
    return Counter((int(one), int(other)) for one, other in found.items)


def test_each_pair_is_two_items_that_a_user_met_one_after_the_other_in_training() -> None:
    events = log()
    expected: Counter[tuple[int, int]] = Counter()
    by_user: dict[int, list[tuple[int, int]]] = {}
    for row in events.to_pylist():
        by_user.setdefault(row["user"], []).append((row["time_ms"], row["item"]))
    for met in by_user.values():
        items = [item for _, item in sorted(met)][:-2]
        expected.update(pair for pair in itertools.pairwise(items) if pair[0] != pair[1])
    assert counted(of(built(events).table)) == expected


SPLITS: list[dict[str, Any]] = [
    {"kind": "leave_last_out"},
    {"kind": "leave_last_n", "num_val": 0, "num_test": 2},
    {"kind": "time"},
    {"kind": "cold_users", "val_share": 0.2, "test_share": 0.2},
    {"kind": "cold_items", "val_share": 0.1, "test_share": 0.1},
    {"kind": "column"},
]


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: str(split["kind"]))
def test_no_event_of_validation_or_test_or_of_a_cold_users_past_is_in_a_pair(split: dict[str, Any]) -> None:
    events = log()
    if split["kind"] == "column":
        order = np.argsort(events["time_ms"].to_numpy(), kind="stable")
        named = np.zeros(len(order), dtype=np.int8)
        named[order[-150:]] = VAL
        named[order[-80:]] = TEST
        events = events.set_column(4, "split", pa.array(named))
    table = built(events, split).table
    packed = Sequences.from_table(table)
    trained = np.zeros(len(packed.items), dtype=np.bool_)
    trained[packed.targets(PairRules(min_history=0))] = True
    assert 0 < trained.sum() < len(trained)
    poisoned = whole(table["items"]).flatten().to_numpy().copy()
    poisoned[~trained] = NUM_ITEMS
    lists = pa.ListArray.from_arrays(whole(table["items"]).offsets, pa.array(poisoned))
    spoilt = table.set_column(table.schema.get_field_index("items"), "items", lists)
    assert counted(of(spoilt)) == counted(of(table))
    assert len(of(table).items)


def test_the_draw_does_not_depend_on_how_users_are_parted_and_takes_all_of_few() -> None:
    table = built(log()).table
    everything = of(table)
    for most in (50, 10_000):
        parts = (of(table.slice(start, 7)) for start in range(0, len(table), 7))
        found = successions.together(parts, most)
        np.testing.assert_array_equal(found.items, successions.first(everything, most).items)
    assert len(found.items) == len(everything.items)


def test_pairs_that_come_again_are_drawn_apart() -> None:
    events = pa.table(
        {
            "user": np.zeros(10, dtype=np.int64),
            "item": np.arange(10) % 2,
            "time_ms": np.arange(1, 11) * 1000,
            "event": np.zeros(10, dtype=np.uint8),
            "split": np.zeros(10, dtype=np.int8),
        }
    )
    found = of(built(events).table)
    assert len(set(found.keys.tolist())) == len(found.items) == 7


def test_events_of_one_moment_are_ordered_by_the_seed_and_another_seed_orders_them_anew() -> None:
    events = log(moments=3)
    table = built(events).table
    turned = built(events.take(np.random.default_rng(1).permutation(len(events)))).table
    assert counted(of(table, seed=1)) == counted(of(turned, seed=1))
    assert counted(of(table, seed=1)) != counted(of(table, seed=2))
    first = Sequences.from_table(table)
    for one, other in of(table, seed=1).items[:50]:
        times = [set(first.times_ms[(first.items == item)].tolist()) for item in (one, other)]
        assert min(times[0]) <= max(times[1])


def test_a_log_without_training_events_has_none() -> None:
    table = built(log()).table.slice(0, 0)
    assert of(table).items.shape == (0, 2)
    assert successions.together([], 10).items.shape == (0, 2)
