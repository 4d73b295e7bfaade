"""Packed sequences back to pairs, against naive loops; and one stream for any number of readers."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl import schema
from raycl.config import PairRules
from raycl.data import reader
from raycl.data.packed import Sequences
from raycl.data.reader import Batch, Limits, PairStream
from raycl.errors import InputError
from raycl.storage import tables
from raycl.storage.store import Store
from tests.data.builders import many_cases, part_table
from tests.data.reference import Packed

T = TypeVar("T")
Pair = tuple[tuple[int, ...], int, float, int]
"""History, item, weight, user row."""


def rules(**settings: Any) -> PairRules:
    split = {"kind": "column"} if settings.get("history") == "others" else {"kind": "leave_last_out"}
    return PairRules.model_validate({"split": split, "max_history": 3} | settings)


def row_of(user: int, items: Sequence[int], first_target: int = 0, times: Sequence[int] | None = None) -> Packed:
    """A user whose events are a moment apart, unless ``times`` says otherwise."""
    weights = tuple(0.5 + item for item in items)
    return Packed(user, user - 1, first_target, tuple(items), weights, tuple(times or range(10, 10 + len(items))))


def flat(parts: Iterable[Iterable[T]]) -> list[T]:
    return list(itertools.chain.from_iterable(parts))


def pairs_of(batch: Batch) -> list[Pair]:
    columns = (batch.history.tolist(), batch.item.tolist(), batch.weight.tolist(), batch.user_row.tolist())
    return [(tuple(history), *rest) for history, *rest in zip(*columns, strict=True)]


def naive_pairs(rows: Sequence[Packed], settings: PairRules) -> list[Pair]:
    """Every pair of ``history: before``, by a loop over events."""
    found: list[Pair] = []
    for row in rows:
        for place in range(row.first_target, len(row.items)):
            earlier = [item for item, time in zip(row.items, row.times_ms, strict=True) if time < row.times_ms[place]]
            if len(earlier) >= settings.min_history:
                before = tuple(earlier[::-1][: settings.max_history])
                history = before + (-1,) * (settings.max_history - len(before))
                found.append((history, row.items[place], row.weights[place], row.user_row))
    return found


@st.composite
def parts(draw: st.DrawFn) -> list[Packed]:
    """Users with repeated items and equal times, with and without context."""
    rows = []
    for user in range(draw(st.integers(0, 6))):
        items = draw(st.lists(st.integers(0, 5), min_size=1, max_size=8))
        times = sorted(draw(st.lists(st.integers(0, 4), min_size=len(items), max_size=len(items))))
        rows.append(row_of(user, items, draw(st.integers(0, len(items) - 1)), times))
    return rows


SETTINGS = st.builds(lambda width, least: {"max_history": width, "min_history": least}, *[st.integers(1, 5)] * 2)


@many_cases
@given(parts(), SETTINGS)
def test_pairs_are_those_of_a_loop_over_events(rows: list[Packed], settings: dict[str, int]) -> None:
    chosen = rules(**settings)
    packed = Sequences.from_table(part_table(rows))
    assert pairs_of(reader.batch(packed, packed.targets(chosen), chosen)) == naive_pairs(rows, chosen)


@many_cases
@given(parts(), st.integers(1, 5))
def test_a_state_is_the_newest_context_strictly_before_the_first_target(rows: list[Packed], width: int) -> None:
    states = Sequences.from_table(part_table(rows)).states(rules(max_history=width), "train")
    for state, row in zip(states.tolist(), rows, strict=True):
        asked_at = row.times_ms[row.first_target]
        earlier = [item for item, time in zip(row.items, row.times_ms, strict=True) if time < asked_at]
        assert state == (earlier[::-1] + [-1] * width)[:width]


def test_events_of_one_moment_are_in_none_of_each_others_histories() -> None:
    rows = [row_of(1, [7, 8, 9, 6], times=[5] * 4), row_of(2, [1, 2, 3, 4], 2, times=[5, 6, 6, 7])]
    packed, chosen = Sequences.from_table(part_table(rows)), rules(min_history=0)
    found = [(item, history) for history, item, _, _ in pairs_of(reader.batch(packed, packed.targets(chosen), chosen))]
    alone = [(item, (-1, -1, -1)) for item in (7, 8, 9, 6)]
    assert found == [*alone, (3, (1, -1, -1)), (4, (3, 2, 1))]
    assert packed.targets(rules()).tolist() == [6, 7]
    assert packed.states(chosen, "train").tolist() == [[-1, -1, -1], [1, -1, -1]]


@many_cases
@given(parts(), st.integers(1, 9))
def test_a_state_without_order_is_some_of_the_context(rows: list[Packed], width: int) -> None:
    states = Sequences.from_table(part_table(rows)).states(rules(history="others", max_history=width), "train")
    for state, row in zip(states.tolist(), rows, strict=True):
        size = min(width, row.first_target)
        assert state[size:] == [-1] * (width - size)
        assert Counter(state[:size]) <= Counter(row.items[: row.first_target])


def test_a_state_without_order_is_drawn_and_not_the_end_of_the_list() -> None:
    rows = [row_of(user, range(20), 19) for user in range(50)]
    states = Sequences.from_table(part_table(rows)).states(rules(history="others", max_history=2), "train")
    assert {item for state in states.tolist() for item in state} == set(range(19))


@many_cases
@given(parts(), st.integers(1, 9), st.integers(0, 2**32))
def test_others_are_other_events_of_the_user_and_never_the_target(rows: list[Packed], width: int, seed: int) -> None:
    chosen = rules(history="others", max_history=width, min_history=0)
    packed = Sequences.from_table(part_table(rows))
    places = packed.targets(chosen)
    shuffled = reader._permute_within(packed, np.random.default_rng(seed))
    found = reader._batch_of_others(packed, places, chosen, shuffled)
    targets = [(row, place) for row in rows for place in range(row.first_target, len(row.items))]
    assert [(item, user) for _, item, _, user in pairs_of(found)] == [(r.items[p], r.user_row) for r, p in targets]
    for (history, item, _, _), (row, place) in zip(pairs_of(found), targets, strict=True):
        rest = Counter(row.items[:place] + row.items[place + 1 :])
        met = Counter(one for one in history if one >= 0)
        assert item not in met
        assert met <= rest
        if width >= len(row.items) - 1:
            assert met.total() == rest.total() - rest[item]


def test_targets_of_others_need_so_many_events_behind_them() -> None:
    packed = Sequences.from_table(part_table([row_of(1, [1, 2]), row_of(2, [3]), row_of(3, [4, 5, 6], 2)]))
    found = {least: packed.targets(rules(history="others", min_history=least)).tolist() for least in range(4)}
    assert found == {0: [0, 1, 2, 5], 1: [0, 1, 5], 2: [5], 3: []}


def test_a_slice_of_sequences_reads_as_its_own_rows() -> None:
    rows = [row_of(user, range(user, user + 4), 1) for user in range(5)]
    packed = Sequences.from_table(part_table(rows).slice(2, 2))
    assert pairs_of(reader.batch(packed, packed.targets(rules()), rules())) == naive_pairs(rows[2:4], rules())


@pytest.mark.parametrize("history", ["before", "others"])
def test_no_sequences_make_no_pairs(history: str) -> None:
    chosen = rules(history=history)
    for table in (part_table([]), part_table([row_of(1, [1, 2])]).slice(0, 0)):
        packed = Sequences.from_table(table)
        assert (len(packed), packed.targets(chosen).tolist()) == (0, [])
        assert packed.states(chosen, "train").shape == (0, 3)


def test_a_part_of_a_batch_is_an_equal_run_of_it() -> None:
    packed = Sequences.from_table(part_table([row_of(1, range(13))]))
    whole = reader.batch(packed, packed.targets(rules()), rules())
    assert flat(pairs_of(whole.part(rank, 4)) for rank in range(4)) == pairs_of(whole)
    assert [len(whole.part(rank, 4)) for rank in range(4)] == [3] * 4


COUNTRY = {"country": pa.large_string()}


@st.composite
def turned_down(draw: st.DrawFn) -> list[Packed]:
    """Users with explicit negatives, some at the very moments of their events, and a country for every event."""
    rows = draw(parts())
    some = st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 5), st.just(1)), max_size=6)
    return [
        row._replace(
            negatives=tuple(sorted(draw(some), key=lambda one: one[1])),
            context=tuple((draw(st.sampled_from(["pe", "", None])),) for _ in row.items),
        )
        for row in rows
    ]


def packed_of(rows: list[Packed]) -> Sequences:
    return Sequences.from_table(part_table(rows, negatives=True, context=COUNTRY))


@many_cases
@given(turned_down(), SETTINGS, st.integers(1, 4))
def test_explicit_negatives_are_the_newest_of_the_user_strictly_before_the_target(
    rows: list[Packed], settings: dict[str, int], width: int
) -> None:
    chosen = rules(**settings, negative_events=["skip"], max_negatives=width)
    packed = packed_of(rows)
    batch = reader.batch(packed, packed.targets(chosen), chosen)
    assert pairs_of(batch) == naive_pairs(rows, chosen)
    assert batch.negatives is not None
    expected = []
    for row in rows:
        for time in row.times_ms[row.first_target :]:
            if sum(earlier < time for earlier in row.times_ms) >= chosen.min_history:
                before = [item for item, moment, _ in row.negatives[::-1] if moment < time]
                expected.append((before + [-1] * width)[:width])
    assert batch.negatives.tolist() == expected


@many_cases
@given(turned_down(), st.integers(1, 4))
def test_explicit_negatives_without_order_are_some_of_the_users_own(rows: list[Packed], width: int) -> None:
    chosen = rules(history="others", min_history=0, negative_events=["skip"], max_negatives=width)
    packed = packed_of(rows)
    shuffle = reader._permute_within(packed, np.random.default_rng(0))
    batch = reader._batch_of_others(packed, packed.targets(chosen), chosen, shuffle)
    assert batch.negatives is not None
    owners = [row for row in rows for _ in row.items[row.first_target :]]
    for found, row in zip(batch.negatives.tolist(), owners, strict=True):
        size = min(width, len(row.negatives))
        assert found[size:] == [-1] * (width - size)
        assert Counter(found[:size]) <= Counter(item for item, _, _ in row.negatives)


def test_explicit_negatives_without_order_are_drawn_and_not_the_end_of_the_list() -> None:
    negatives = tuple((item, 0, 1) for item in range(20))
    rows = [row_of(user, [1])._replace(negatives=negatives) for user in range(50)]
    packed = Sequences.from_table(part_table(rows, negatives=True))
    assert packed.negatives is not None
    found = packed.negatives.some(np.arange(50), 2)
    assert set(found.ravel().tolist()) == set(range(20))


@many_cases
@given(turned_down(), SETTINGS)
def test_a_pair_has_the_time_and_context_of_its_target_and_the_age_of_its_history(
    rows: list[Packed], settings: dict[str, int]
) -> None:
    chosen = rules(**settings)
    packed = packed_of([row._replace(times_ms=tuple(1_500 * time for time in row.times_ms)) for row in rows])
    batch = reader.batch(packed, places := packed.targets(chosen), chosen, with_ages=True)
    assert reader.batch(packed, places, chosen).history_age_s is None
    events = [(row, place) for row in rows for place in range(len(row.items))]
    targets = [events[place] for place in places]
    assert batch.time_ms.tolist() == [1_500 * row.times_ms[place] for row, place in targets]
    assert batch.context["country"].to_pylist() == [row.context[place][0] for row, place in targets]
    assert batch.history_age_s is not None
    assert batch.history_age_s.dtype == np.float32
    for found, (row, place) in zip(batch.history_age_s.tolist(), targets, strict=True):
        gaps = [1.5 * (row.times_ms[place] - earlier) for earlier in row.times_ms[::-1]]
        expected = [gap for gap in gaps if gap > 0][: chosen.max_history]
        assert found == expected + [0.0] * (chosen.max_history - len(expected))


def test_the_age_of_an_event_that_follows_the_target_is_less_than_nothing() -> None:
    chosen = rules(history="others", max_history=4)
    packed = Sequences.from_table(part_table([row_of(1, [5, 6, 7], times=[1_000, 3_000, 9_000])]))
    shuffle = reader._permute_within(packed, np.random.default_rng(0))
    batch = reader._batch_of_others(packed, packed.targets(chosen), chosen, shuffle, with_ages=True)
    assert batch.history_age_s is not None
    columns = zip(batch.history.tolist(), batch.history_age_s.tolist(), strict=True)
    ages = [dict(zip(history, age, strict=True)) for history, age in columns]
    assert ages == [{6: -2.0, 7: -8.0, -1: 0.0}, {5: 2.0, 7: -6.0, -1: 0.0}, {5: 8.0, 6: 6.0, -1: 0.0}]


def test_what_training_knows_of_a_user_keeps_its_own_context() -> None:
    row = row_of(1, [5, 6, 7], 2)._replace(context=(("a",), ("b",), ("c",)), negatives=((3, 1, 1),))
    packed = Sequences.from_table(part_table([row, row], "test", negatives=True, context=COUNTRY)).trained_on()
    assert (packed.items.tolist(), packed.context["country"].to_pylist()) == ([5, 6] * 2, ["a", "b"] * 2)
    assert packed.negatives is not None
    assert packed.negatives.items.tolist() == [3, 3]


def everything_of(batch: Batch) -> list[tuple[Any, ...]]:
    """All that a batch says, a pair at a time."""
    assert set(batch.arrays) == {"history", "item", "weight", "user_row", "time_ms", "history_age_s", "negatives"}
    columns = [*(column.tolist() for column in batch.arrays.values()), batch.context["country"].to_pylist()]
    return [tuple(tuple(one) if isinstance(one, list) else one for one in pair) for pair in zip(*columns, strict=True)]


@pytest.mark.parametrize(
    "kind", [{}, {"history": "others"}, {"kind": "item_to_item", "max_history": 1, "within_s": 9}], ids=str
)
@pytest.mark.parametrize(("size", "window"), [(4, 1), (8, 30), (40, 1_000)])
def test_negatives_ages_and_context_reach_every_reader_with_their_pairs(
    tmp_path: Path, kind: dict[str, Any], size: int, window: int
) -> None:
    store, item = Store(str(tmp_path)), 0
    for number, sizes in enumerate(FILES):
        rows = []
        for user, length in enumerate(sizes):
            row = row_of(10 * number + user, items := range(item, item := item + length))
            negatives = tuple((1_000 + one, 9 + place, 1) for place, one in enumerate(items))
            rows.append(row._replace(negatives=negatives, context=tuple((f"c{one}",) for one in items)))
        tables.write(store, f"sequences/part-{number:06d}.parquet", part_table(rows, negatives=True, context=COUNTRY))
    chosen = rules(**{"negative_events": ["skip"], "max_negatives": 2} | kind)
    others = chosen.history == "others"
    counts = [sum(length - (not others) for length in sizes if length > 1) for sizes in FILES]
    files = tuple((f"sequences/part-{number:06d}.parquet", count) for number, count in enumerate(counts))
    stream = PairStream(
        store, files, chosen, size, window, 3, with_ages=True, with_negatives=True, context=("country",)
    )
    whole = [everything_of(batch) for batch in stream.epoch(1)]
    assert len(whole) == stream.steps
    halves = [[everything_of(batch) for batch in stream.epoch(1, rank, 2)] for rank in range(2)]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole
    for history, target, _, _, time_ms, ages, negatives, country in flat(whole):
        assert country == f"c{target}"
        if not others:
            assert ages == pytest.approx([(target - one) / 1_000 if one >= 0 else 0.0 for one in history])
            behind = [1_000 + target, 999 + target] if time_ms > 10 else [1_000 + target, -1]
            assert list(negatives) == behind
    bare = PairStream(store, files, chosen.model_copy(update={"negative_events": ()}), size, window, 3)
    assert [[pair[:4] for pair in one] for one in whole] == [[*map(tuple, pairs_of(batch))] for batch in bare.epoch(1)]
    assert all((batch.negatives, batch.history_age_s, batch.context) == (None, None, {}) for batch in bare.epoch(1))


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("history", ["before", "others"])
def test_pairs_of_users_with_many_of_them_weigh_less_at_a_mean_of_one(
    tmp_path: Path, history: str, power: float
) -> None:
    plain = stream(tmp_path, 1, 10_000, history)
    sizes = {item: len(row.items) for rows in write_files(tmp_path)[1] for row in rows for item in row.items}
    found = list(zip(plain.epoch(0), replace(plain, user_balance=power).epoch(0), strict=True))
    share = [(sizes[int(one.item[0])] - (history == "before")) ** -power for one, _ in found]
    scale = len(share) / sum(share)
    for (one, other), factor in zip(found, share, strict=True):
        assert other.item.tolist() == one.item.tolist()
        assert other.weight[0] == pytest.approx(one.weight[0] * factor * scale, rel=1e-5)


FILES: tuple[list[int], ...] = ([30, 5, 5], [], [2], [12, 40], [25, 3], [2, 2, 2])
"""Sequence lengths of each file; no item is in two places, so an item names its pair."""


def write_files(folder: Path) -> tuple[Store, list[list[Packed]]]:
    store, files, item = Store(str(folder)), [], 0
    for number, sizes in enumerate(FILES):
        rows = []
        for user, size in enumerate(sizes):
            rows.append(row_of(10 * number + user, range(item, item + size)))
            item += size
        tables.write(store, f"sequences/part-{number:06d}.parquet", part_table(rows))
        files.append(rows)
    return store, files


def stream(folder: Path, size: int, window: int, history: str = "before", seed: int = 3) -> PairStream:
    store, files = write_files(folder)
    chosen = rules(history=history)
    counts = [sum(len(row.items) - (history == "before") for row in rows) for rows in files]
    named = tuple((f"sequences/part-{number:06d}.parquet", count) for number, count in enumerate(counts))
    return PairStream(store, named, chosen, size, window, seed)


def epoch_of(found: PairStream, epoch: int = 0, rank: int = 0, world: int = 1, first: int = 0) -> list[list[Pair]]:
    return [pairs_of(batch) for batch in found.epoch(epoch, rank, world, first)]


SIZES = [4, 8, 40]
WINDOWS = [1, 30, 1_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", WINDOWS)
def test_an_epoch_is_whole_batches_of_pairs_of_the_log_each_once(tmp_path: Path, size: int, window: int) -> None:
    found = stream(tmp_path, size, window)
    pairs = [pair for batch in epoch_of(found) for pair in batch]
    expected = naive_pairs(flat(write_files(tmp_path)[1]), found.rules)
    assert found.steps == len(expected) // size
    assert len(pairs) == len(set(pairs)) == found.steps * size
    assert set(pairs) <= set(expected)
    assert {len(batch) for batch in epoch_of(found)} == {size}


@pytest.mark.parametrize("history", ["before", "others"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_parts_of_all_ranks_are_the_batches_of_one_reader(
    tmp_path: Path, history: str, size: int, window: int, world: int
) -> None:
    found = stream(tmp_path, size, window, history)
    ranks = [epoch_of(found, 5, rank, world) for rank in range(world)]
    assert [flat(parts) for parts in zip(*ranks, strict=True)] == epoch_of(found, 5)


@pytest.mark.parametrize("history", ["before", "others"])
@pytest.mark.parametrize("window", WINDOWS)
def test_first_step_skips_exactly_so_many_batches(tmp_path: Path, history: str, window: int) -> None:
    found = stream(tmp_path, 8, window, history)
    whole = epoch_of(found, rank=1, world=2)
    for first in range(found.steps + 2):
        assert epoch_of(found, rank=1, world=2, first=first) == whole[first:]


def test_others_in_a_stream_are_never_the_target(tmp_path: Path) -> None:
    found = stream(tmp_path, 8, 30, "others")
    owner = {item: row for rows in write_files(tmp_path)[1] for row in rows for item in row.items}
    for history, item, weight, user_row in flat(epoch_of(found)):
        assert item not in history
        assert set(history) - {-1} <= set(owner[item].items)
        assert (weight, user_row) == (item + 0.5, owner[item].user_row)


def test_epochs_and_seeds_differ_and_each_is_the_same_every_time(tmp_path: Path) -> None:
    orders = [
        [item for batch in epoch_of(stream(tmp_path, 8, 30, seed=seed), epoch) for _, item, _, _ in batch]
        for seed, epoch in [(3, 0), (3, 1), (4, 0), (3, 0)]
    ]
    assert orders[0] == orders[3]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_others_of_a_pair_differ_between_epochs(tmp_path: Path) -> None:
    found = stream(tmp_path, 8, 1_000, "others")
    first, second = ({item: set(h) for h, item, _, _ in flat(epoch_of(found, e))} for e in (0, 1))
    assert any(first[item] != second[item] for item in first.keys() & second.keys())


def test_over_some_epochs_no_pair_waits_for_ever(tmp_path: Path) -> None:
    found = stream(tmp_path, 40, 1)
    expected = naive_pairs(flat(write_files(tmp_path)[1]), found.rules)
    assert {pair for epoch in range(20) for batch in epoch_of(found, epoch) for pair in batch} == set(expected)


def test_pairs_are_shuffled_within_a_window_and_windows_follow_one_another(tmp_path: Path) -> None:
    found = stream(tmp_path, 4, 1)
    file_of = {item: number for number, rows in enumerate(write_files(tmp_path)[1]) for r in rows for item in r.items}
    items = [item for batch in epoch_of(found) for _, item, _, _ in batch]
    runs = [(number, list(run)) for number, run in itertools.groupby(items, file_of.__getitem__)]
    assert len(runs) == len({number for number, _ in runs})
    assert all(run != sorted(run) for _, run in runs if len(run) > 10)


def test_one_large_window_mixes_all_files(tmp_path: Path) -> None:
    found = stream(tmp_path, 40, 1_000)
    file_of = {item: number for number, rows in enumerate(write_files(tmp_path)[1]) for r in rows for item in r.items}
    first = {file_of[item] for _, item, _, _ in epoch_of(found)[0]}
    assert len(first) >= 3


def test_a_batch_larger_than_the_log_makes_no_step(tmp_path: Path) -> None:
    found = stream(tmp_path, 1_000, 30)
    assert (found.steps, epoch_of(found)) == (0, [])


def naive_anchors(row: Packed, place: int, settings: PairRules) -> list[int]:
    """Places that may be the anchor of the target at ``place``, by a loop backwards."""
    found = []
    times = row.times_ms
    for anchor in range(place - 1, -1, -1):
        if settings.session_gap_s and times[anchor + 1] - times[anchor] > 1000 * settings.session_gap_s:
            break
        if settings.within_s and times[place] - times[anchor] > 1000 * settings.within_s:
            break
        if times[anchor] < times[place]:
            found.append(anchor)
    return found


@many_cases
@given(parts(), st.sampled_from([{"within_s": 1}, {"session_gap_s": 1}, {"within_s": 3, "session_gap_s": 2}]))
def test_item_pairs_join_a_target_with_any_event_before_it_in_reach(rows: list[Packed], reach: dict[str, int]) -> None:
    rows = [row._replace(times_ms=tuple(1_000 * time for time in row.times_ms)) for row in rows]
    settings = rules(kind="item_to_item", max_history=1, **reach)
    sequences = Sequences.from_table(part_table(rows))
    first = sequences.anchors_from(settings)
    expected = {}
    start = 0
    for row in rows:
        for place in range(row.first_target, len(row.items)):
            if anchors := naive_anchors(row, place, settings):
                expected[start + place] = sorted(start + anchor for anchor in anchors)
        start += len(row.items)
    places = sequences.targets(settings)
    assert places.tolist() == list(expected)
    assert [list(range(first[place], sequences.moment[place])) for place in places] == list(expected.values())


def test_the_anchors_of_an_epoch_are_the_same_for_any_number_of_readers(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    rows = [row_of(user, [*range(user, user + 9)], times=[60_000 * step for step in range(9)]) for user in range(1, 9)]
    tables.write(store, "sequences/part-000000.parquet", part_table(rows))
    settings = rules(kind="item_to_item", max_history=1, within_s=240)
    stream = PairStream(store, (("sequences/part-000000.parquet", 64),), settings, 8, 1_000, 3)
    whole = [pairs_of(batch) for batch in stream.epoch(0)]
    assert len(whole) == stream.steps == 8
    halves = [[*map(pairs_of, stream.epoch(0, rank, 2))] for rank in range(2)]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole
    assert all(1 <= item - history[0] <= 4 for batch in whole for history, item, *_ in batch)
    assert {item - history[0] for batch in whole for history, item, *_ in batch} == {1, 2, 3, 4}
    assert [pairs_of(batch) for batch in stream.epoch(1)] != whole


@pytest.mark.parametrize(
    ("items", "user", "limits", "told"),
    [
        (
            [0, 7, 1],
            3,
            Limits(7, 3),
            r"part-1\.parquet points at row 7 in column 'items', and there are 7: .* --force'",
        ),
        ([0, -1, 1], 3, Limits(7, 3), r"part-1\.parquet points at row -1 in column 'items'"),
        ([0, 6, 1], 4, Limits(7, 3), r"part-1\.parquet points at row 3 in column 'user_row', and there are 3"),
    ],
)
def test_a_file_that_points_outside_its_tables_is_named(
    tmp_path: Path, items: list[int], user: int, limits: Limits, told: str
) -> None:
    store = Store(str(tmp_path))
    for number, row in enumerate((row_of(1, [6, 5]), row_of(user, items))):
        tables.write(store, f"part-{number}.parquet", part_table([row]))
    files = (("part-0.parquet", 1), ("part-1.parquet", 2))
    stream = PairStream(store, files, rules(), 1, 100, 0, limits=limits)
    with pytest.raises(InputError, match=told):
        list(stream.epoch(0))
    if items[1] > 0:
        assert len(list(replace(stream, limits=Limits(8, 4)).epoch(0))) == 3


def test_explicit_negatives_point_into_the_vocabulary_too(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    row = row_of(1, [0, 1, 2])._replace(negatives=((9, 5, 0),))
    tables.write(store, "part.parquet", part_table([row], negatives=True))
    with pytest.raises(InputError, match="points at row 9 in column 'negative_items', and there are 3"):
        reader.read(store, ["part.parquet"], "train", schema.NEGATIVES, Limits(3, 1))


class Reads:
    """Stands in for ``reader.read``: which files were read, and how many windows were ever in memory at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        self.most = 0
        self._kept: list[weakref.ref[Sequences]] = []
        self._begun = threading.Semaphore(0)
        self._read = reader.read
        monkeypatch.setattr(reader, "read", self.read)

    def read(self, store: Store, paths: Sequence[str], *more: Any) -> Sequences:
        self.paths += paths
        self._begun.release()
        found = self._read(store, paths, *more)
        self._kept.append(weakref.ref(found))
        self.most = max(self.most, self.alive)
        return found

    @property
    def alive(self) -> int:
        return sum(one() is not None for one in self._kept)

    def wait_for(self, count: int) -> None:
        """Return once so many files were opened."""
        while len(self.paths) < count:
            assert self._begun.acquire(timeout=60)


def order_of(found: PairStream, epoch: int) -> list[str]:
    """The files in the order of an epoch."""
    places = np.random.default_rng([found.seed, epoch]).permutation(len(found.files))
    return [found.files[place][0] for place in places]


def test_the_next_window_is_read_while_the_first_is_handed_out_and_no_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, reads = stream(tmp_path, 4, 1), Reads(monkeypatch)
    expected = [path for path in order_of(found, 0) if dict(found.files)[path]]
    batches = iter(found.epoch(0))
    next(batches)
    reads.wait_for(2)
    assert len(list(batches)) == found.steps - 1
    assert [path for path in reads.paths if dict(found.files)[path]] == expected
    assert reads.most <= 2
    assert reads.alive == 0


@pytest.mark.parametrize("history", ["before", "others"])
def test_windows_before_the_first_step_are_not_read_where_their_size_says_what_they_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: str
) -> None:
    found, reads = stream(tmp_path, 4, 1, history), Reads(monkeypatch)
    pairs, files = dict(found.files), order_of(found, 0)
    stops = dict(zip(files, itertools.accumulate(pairs[path] for path in files), strict=True))
    first = 4
    assert epoch_of(found, first=first)
    skipped = [path for path in files if stops[path] <= first * 4]
    assert skipped
    assert [path in reads.paths for path in skipped] == [history == "others" for _ in skipped]


def test_a_reader_makes_no_more_pairs_than_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, made = stream(tmp_path, 8, 30), []
    make = reader.batch

    def counted(sequences: Sequences, places: Any, *given: Any, **more: Any) -> Batch:
        made.append(len(places))
        return make(sequences, places, *given, **more)

    monkeypatch.setattr(reader, "batch", counted)
    assert len(epoch_of(found, rank=1, world=2, first=3)) == found.steps - 3
    assert sum(made) == (found.steps - 3) * 4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", WINDOWS)
def test_an_epoch_is_the_shuffled_windows_end_to_end(tmp_path: Path, size: int, window: int) -> None:
    found = stream(tmp_path, size, window)
    generator = np.random.default_rng([found.seed, 2])
    files = [found.files[place] for place in generator.permutation(len(found.files))]
    expected: list[Pair] = []
    while files:
        chosen = [files.pop(0)]
        while files and sum(count for _, count in chosen) < window:
            chosen.append(files.pop(0))
        packed = reader.read(found.store, [path for path, _ in chosen], "train")
        places = packed.targets(found.rules)
        generator.shuffle(places)
        expected += pairs_of(reader.batch(packed, places, found.rules))
    assert flat(epoch_of(found, 2)) == expected[: found.steps * size]
