"""Synthetic logs hold what they promise: rows, faults, users without repeats, and a best recall that is true."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl.data import synthetic
from raycl.data.synthetic import Histories, SyntheticSpec, World
from raycl.errors import ConfigError
from raycl.storage.store import Store

SPEC = SyntheticSpec(num_rows=20_003, rows_per_shard=8_000, num_items=500, seed=3, bad_share=0.05)
EVENT = ["user_id", "item_id", "event_type", "timestamp"]
Floats = npt.NDArray[np.float64]


def frame(table: pa.Table) -> pl.DataFrame:
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


def faults(spec: SyntheticSpec, events: pl.DataFrame) -> pl.DataFrame:
    """One column a fault of a single row, found without the generator's help."""
    known = frame(synthetic.catalogue(spec))["item_id"]
    year_2100 = 4_102_444_800
    return events.select(
        null_user=pl.col("user_id").is_null(),
        null_item=pl.col("item_id").is_null(),
        null_time=pl.col("timestamp").is_null(),
        time_out_of_range=((pl.col("timestamp") <= 0) | (pl.col("timestamp") >= year_2100)).fill_null(value=False),
        unknown_event=~pl.col("event_type").is_in(["view", "cart", "purchase"]).fill_null(value=False),
        unknown_item=pl.col("item_id").is_not_null() & ~pl.col("item_id").is_in(known.to_list()),
    )


def good_events(spec: SyntheticSpec, index: int) -> pl.DataFrame:
    """Good rows of a shard, once each, in the order of the file."""
    events = frame(synthetic.shard(spec, index).events)
    faulty = faults(spec, events).select(pl.any_horizontal(pl.all())).to_series()
    return events.filter(~faulty).unique(EVENT, keep="first", maintain_order=True)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        SyntheticSpec(num_rows=1_000),
        SyntheticSpec(num_rows=1_001, rows_per_shard=1_000, bad_share=0.4, num_items=60, events_per_user=20),
        SyntheticSpec(num_rows=5_000, bad_share=0.0, num_days=10, events_per_user=100),
    ],
)
def test_the_log_has_exactly_its_rows_and_every_user_a_history(spec: SyntheticSpec) -> None:
    shards = [synthetic.shard(spec, index) for index in range(synthetic.num_shards(spec))]

    sizes = [part.events.num_rows for part in shards]
    assert sum(sizes) == spec.num_rows
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= spec.rows_per_shard
    users = pl.concat([frame(part.users) for part in shards])
    assert users["user_id"].is_unique().all()
    counts = pl.concat([good_events(spec, index) for index in range(len(shards))]).group_by("user_id").len()
    assert set(counts["user_id"]) == set(users["user_id"])
    assert int(counts["len"].to_numpy().min()) >= 5
    truth = synthetic.merge_truth([part.truth for part in shards])
    assert (truth.num_rows, truth.num_users) == (spec.num_rows, len(users))


def test_a_shard_is_a_function_of_spec_and_index() -> None:
    forwards = [synthetic.shard(SPEC, index) for index in (0, 1, 2)]
    backwards = [synthetic.shard(SPEC, index) for index in (2, 1, 0)][::-1]

    for one, other in zip(forwards, backwards, strict=True):
        assert one.events.equals(other.events)
        assert one.users.equals(other.users)
        assert one.truth == other.truth
    assert synthetic.catalogue(SPEC).equals(synthetic.catalogue(SPEC))
    assert not synthetic.shard(replace(SPEC, seed=4), 0).events.equals(forwards[0].events)
    assert not forwards[0].events["item_id"].equals(forwards[1].events["item_id"])


def test_columns_have_the_types_of_a_log() -> None:
    part = synthetic.shard(SPEC, 0)

    assert {field.name: str(field.type) for field in part.events.schema} == {
        "user_id": "int64",
        "item_id": "int64",
        "event_type": "string",
        "timestamp": "int64",
        "session_id": "int64",
    }
    assert {field.name: str(field.type) for field in part.users.schema} == {"user_id": "int64", "country": "string"}


@pytest.mark.parametrize("index", [0, 2])
def test_every_faulty_row_has_one_fault_and_each_is_counted(index: int) -> None:
    part = synthetic.shard(SPEC, index)
    events = frame(part.events)
    found = faults(SPEC, events)

    assert int(found.sum_horizontal().to_numpy().max()) == 1
    clean = events.filter(~found.select(pl.any_horizontal(pl.all())).to_series())
    copies = clean.group_by(EVENT).len()
    assert set(copies["len"]) == {1, 2}
    counted = {name: int(found[name].sum()) for name in found.columns}
    assert counted | {"duplicate": len(clean) - len(copies)} == part.bad_rows
    assert sum(part.bad_rows.values()) == round(len(events) * SPEC.bad_share)
    assert max(part.bad_rows.values()) - min(part.bad_rows.values()) <= 1
    assert list(part.bad_rows) == list(synthetic.REASONS)


def test_faults_come_in_all_their_forms_and_lie_anywhere() -> None:
    events = frame(synthetic.shard(SPEC, 0).events)
    found = faults(SPEC, events)

    wrong_events = events.filter(found["unknown_event"])["event_type"]
    assert 0 < wrong_events.null_count() < len(wrong_events)
    wrong_times = events.filter(found["time_out_of_range"])["timestamp"]
    assert {0, -1} < set(wrong_times)
    assert int(wrong_times.to_numpy().max()) > 4_102_444_800
    for name in found.columns:
        places = np.flatnonzero(found[name].to_numpy()) / len(events)
        assert places.min() < 0.25
        assert places.max() > 0.75
    nothing_bad = synthetic.shard(replace(SPEC, bad_share=0.0), 0)
    assert not any(nothing_bad.bad_rows.values())
    assert all(column.null_count == 0 for column in nothing_bad.events.columns)


def test_good_events_of_a_user_repeat_no_item_and_no_moment() -> None:
    good = good_events(SPEC, 1)

    assert good.select("user_id", "item_id").is_unique().all()
    assert good.select("user_id", "timestamp").is_unique().all()
    assert int(good["timestamp"].to_numpy().min()) >= SPEC.start_time_s
    assert int(good["timestamp"].to_numpy().max()) < SPEC.start_time_s + SPEC.num_days * 86_400
    owners = good.group_by("session_id").agg(pl.col("user_id").n_unique())
    assert set(owners["user_id"]) == {1}
    shares = {kind: count / len(good) for kind, count in good["event_type"].value_counts().iter_rows()}
    assert shares == pytest.approx({"view": 0.80, "cart": 0.15, "purchase": 0.05}, abs=0.02)


def test_histories_run_forwards_in_sessions_of_minutes_with_days_between() -> None:
    spec = SyntheticSpec(num_rows=30_000)
    histories = histories_of(spec)
    gaps = np.diff(histories.time_s)
    same_user = np.diff(histories.user) == 0
    same_session = np.diff(histories.session) == 0

    assert (gaps[same_user] > 0).all()
    assert np.median(gaps[same_session]) < 600
    assert np.median(gaps[same_user & ~same_session]) > 86_400
    assert len(histories.item) == spec.num_rows
    assert abs(histories.sizes.mean() - spec.events_per_user) < 2


def test_titles_are_distinct_words_that_end_in_the_category() -> None:
    for spec in (SPEC, SyntheticSpec(num_rows=1_000, num_items=50_000, num_categories=60)):
        items = frame(synthetic.catalogue(spec))
        assert len(items) == spec.num_items
        assert items["title"].is_unique().all()
        assert items["item_id"].is_unique().all()
        assert items["category"].n_unique() == spec.num_categories
        assert all(category in title.split()[2] for title, category in items.select("title", "category").iter_rows())
        assert float(items["price"].to_numpy().min()) > 0
    assert set(frame(synthetic.catalogue(SPEC))["item_id"]) != set(range(SPEC.num_items))


def histories_of(spec: SyntheticSpec) -> Histories:
    return synthetic.build_histories(spec, synthetic.build_world(spec), spec.num_rows, np.random.default_rng(11))


def dense_tastes(world: World, histories: Histories) -> Floats:
    """Probabilities of all items in each user's last session before anything is seen, one user at a time."""
    ends = np.cumsum(histories.sizes)
    tastes = []
    for user, end in enumerate(ends):
        by_category = (1 - histories.weights[user].sum()) * world.popularity
        favourites = histories.favourites[histories.session[end - 1]]
        for favourite, weight in zip(favourites, histories.weights[user], strict=True):
            by_category[favourite] += weight
        tastes.append(by_category[world.category] * world.within)
    return np.array(tastes)


def recall(histories: Histories, scores: Floats) -> Floats:
    """Whether each user's last item is in the top 20 of ``scores`` (users, items) over unseen items."""
    seen = np.ones(len(histories.item), dtype=np.bool_)
    ends = np.cumsum(histories.sizes)
    seen[ends - 1] = False
    unseen = scores.copy()
    unseen[histories.user[seen], histories.item[seen]] = -1.0
    top = np.argsort(-unseen, axis=1, kind="stable")[:, :20]
    return np.asarray((top == histories.item[ends - 1][:, None]).any(axis=1), dtype=np.float64)


@pytest.mark.parametrize(
    "spec",
    [
        SyntheticSpec(num_rows=60_000),
        SyntheticSpec(num_rows=60_000, num_items=120),
        SyntheticSpec(num_rows=6_000, num_items=10_000, num_categories=10),
    ],
)
def test_expected_hits_are_those_of_a_slow_sum_and_of_the_draws(spec: SyntheticSpec) -> None:
    world, histories = synthetic.build_world(spec), histories_of(spec)
    users = np.arange(len(histories.sizes))
    oracle, popularity = synthetic.expected_hits(world, histories, users)
    tastes = dense_tastes(world, histories)
    assert tastes.sum(axis=1) == pytest.approx(1.0)

    popular = world.popularity[world.category] * world.within
    for user in range(50):
        seen = histories.item[histories.user == user][:-1]
        unseen = np.setdiff1d(np.arange(spec.num_items), seen)
        left = tastes[user, unseen].sum()
        assert oracle[user] == pytest.approx(np.sort(tastes[user, unseen])[-20:].sum() / left)
        common = unseen[np.argsort(-popular[unseen])[:20]]
        assert popularity[user] == pytest.approx(tastes[user, common].sum() / left)

    for expected, scores in ((oracle, tastes), (popularity, np.tile(popular, (len(users), 1)))):
        error = np.sqrt((expected * (1 - expected)).sum()) / len(users)
        assert abs(recall(histories, scores).mean() - expected.mean()) < 3 * error


def test_items_are_drawn_as_if_one_by_one() -> None:
    """Of three items with 6, 3 and 1 parts, drawn without repeats: the pair (second, first) has 0.3 * 6 / 7."""
    within = np.array([0.6, 0.3, 0.1, 1.0])
    starts, category = np.array([0, 3, 4]), np.array([0, 0, 0, 1])
    world = World(starts, category, within, np.cumsum(within), np.array([1.0, 0.0]), np.arange(4))
    num_users = 40_000
    user = np.repeat(np.arange(num_users), 2)
    drawn = synthetic._draw_unseen(
        world,
        np.full(num_users, 2),
        user,
        np.zeros((2 * num_users, 3), dtype=np.int64),
        np.full((num_users, 3), 1 / 3),
        np.random.default_rng(0),
    ).reshape(-1, 2)

    share = np.array([0.6, 0.3, 0.1])
    for first in range(3):
        for second in range(3):
            found = ((drawn[:, 0] == first) & (drawn[:, 1] == second)).mean()
            wanted = 0.0 if first == second else share[first] * share[second] / (1 - share[first])
            assert abs(found - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / num_users)


@pytest.mark.parametrize("num_rows", [60_000, 200_000])
def test_the_truth_leaves_much_to_learn(num_rows: int) -> None:
    truth = synthetic.shard(SyntheticSpec(num_rows=num_rows), 0).truth.to_json()

    assert truth["users_sampled"] == 500
    assert truth["oracle_recall_at_20"] >= 0.35
    assert truth["oracle_recall_at_20"] / truth["popularity_recall_at_20"] >= 6


def test_counting_categories_already_learns_most_of_it() -> None:
    """A user's categories times an item's share of its category, both counted in the log before the last events."""
    spec = SyntheticSpec(num_rows=100_000)
    world, histories = synthetic.build_world(spec), histories_of(spec)
    before = np.ones(len(histories.item), dtype=np.bool_)
    before[np.cumsum(histories.sizes) - 1] = False
    user, item = histories.user[before], histories.item[before]
    popular = np.bincount(item, minlength=spec.num_items) + 0.1
    of_category = popular / np.bincount(world.category, popular)[world.category]
    categories = np.full((len(histories.sizes), spec.num_categories), 0.3)
    np.add.at(categories, (user, world.category[item]), 1.0)

    learned = recall(histories, categories[:, world.category] * of_category).mean()
    oracle, _ = synthetic.expected_hits(world, histories, np.arange(len(histories.sizes)))
    assert learned >= 0.6 * oracle.mean()
    assert learned >= 5 * recall(histories, np.tile(popular, (len(histories.sizes), 1))).mean()


def test_truths_add_up() -> None:
    truths = [synthetic.shard(SPEC, index).truth for index in range(3)]
    merged = synthetic.merge_truth(truths)
    told = merged.to_json()

    assert merged.bad_rows == {name: sum(truth.bad_rows[name] for truth in truths) for name in synthetic.REASONS}
    assert told["num_rows"] == SPEC.num_rows
    assert told["users_sampled"] == sum(truth.users_sampled for truth in truths)
    weighted = sum(truth.to_json()["oracle_recall_at_20"] * truth.users_sampled for truth in truths)
    assert told["oracle_recall_at_20"] == pytest.approx(weighted / merged.users_sampled)
    recalls = {"oracle_recall_at_20", "popularity_recall_at_20"}
    assert set(told) == recalls | {"num_rows", "num_users", "bad_rows", "users_sampled"}
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[
            ("num_rows", 999),
            ("num_items", 59),
            ("num_items", 10**8),
            ("num_rows", 10**13),
            ("num_categories", 61),
            ("num_categories", 3),
            ("seed", -1),
        ],
        *[("events_per_user", value) for value in (7.5, 167.0, float("nan"))],
        *[("bad_share", -0.1), ("bad_share", 0.41), ("rows_per_shard", 999), ("rows_per_shard", 10_000_001)],
        *[("num_days", 9), ("start_time_s", 0), ("start_time_s", 4_102_444_800)],
    ],
)
def test_a_bad_spec_is_refused_by_field_value_and_remedy(field: str, value: Any) -> None:
    options = {"num_rows": r" \(--rows\)", "num_items": r" \(--items\)", "seed": r" \(--seed\)"}
    with pytest.raises(ConfigError, match=rf"^{field}={value}{options.get(field, '')} makes no log: use .* to "):
        replace(SPEC, **{field: value})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: synthetic.shard(SPEC, 3), "index=3 is no shard: use 0 to 2"),
        (lambda: synthetic.shard(SPEC, -1), "index=-1 is no shard: use 0 to 2"),
        (lambda: synthetic.merge_truth([]), "parts=\\[\\] leaves nothing to merge"),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("ray_local")
def test_ray_writes_the_shards_and_the_truth_last(tmp_path: Path) -> None:
    from raycl.data import ray_synthetic

    store = Store(str(tmp_path))
    longer = replace(SPEC, num_rows=SPEC.num_rows + SPEC.rows_per_shard)
    ray_synthetic.write(longer, store)
    (tmp_path / "events" / "notes.txt").write_text("mine")
    truth = ray_synthetic.write(SPEC, store)

    assert store.files("users") == [f"users/part-0000{index}.parquet" for index in range(3)]
    assert store.files("events") == ["events/notes.txt", *(f"events/part-0000{index}.parquet" for index in range(3))]
    for index in range(3):
        part = synthetic.shard(SPEC, index)
        assert pq.read_table(tmp_path / f"events/part-0000{index}.parquet").equals(part.events)
        assert pq.read_table(tmp_path / f"users/part-0000{index}.parquet").equals(part.users)
    assert pq.read_table(tmp_path / "items/part-00000.parquet").equals(synthetic.catalogue(SPEC))
    assert truth == json.loads((tmp_path / "truth.json").read_text())
    merged = synthetic.merge_truth([synthetic.shard(SPEC, index).truth for index in range(3)])
    assert truth == merged.to_json() | {"spec": asdict(SPEC)}
    written = [path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")]
    assert (tmp_path / "truth.json").stat().st_mtime_ns >= max(written)
