"""A synthetic log with known faults and a known best recall, made shard by shard from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl.errors import ConfigError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

REASONS = ("null_user", "null_item", "null_time", "time_out_of_range", "unknown_event", "unknown_item", "duplicate")
"""The faults that are injected, by the names that the cleaner counts them under."""
TRUTH_FILE = "truth.json"
TOP = 20  # length of the lists that the truth is about
_EVENTS = {"view": 0.8, "cart": 0.15, "purchase": 0.05, "impression": 0.0}
_LATEST_S = 4_102_444_800  # 2100-01-01
_WRONG_TIMES_S = (0, -1, _LATEST_S, _LATEST_S + 3_155_760_000)
_COUNTRIES = {"BR": 0.13, "DE": 0.11, "ES": 0.08, "FR": 0.1, "IN": 0.22, "JP": 0.09, "KE": 0.08, "US": 0.19}
_FAVOURITES, _FAVOURITE_MASS, _DRIFT = 3, 0.92, 0.1
_SESSION_EVENTS, _LEAST_EVENTS, _MOST_EVENTS = 5, 5, 200
_LONGEST_GAP_S = 3_600  # 200 of them fit in 10 days, the shortest log
_SLOT_BITS = 8  # for an event's place in its user's history
_SAMPLED_USERS = 500
_OPTIONS = {"num_rows": "--rows", "num_items": "--items", "seed": "--seed"}  # of the command
_ID_STRIDE = 10_000_000  # between the ids of one shard and the next
_ADJECTIVES = "Amber Bold Bright Calm Clever Curious Early Gentle Golden Hidden Little Lucky Misty Quiet Rustic Wild"
_PLACES = "Bay Birch Brook Canyon Cliff Coast Creek Desert Dune Field Forest Garden Harbor Lagoon Meadow River Shore"
_CATEGORIES = """Lantern Kettle Chair Blanket Teapot Backpack Notebook Candle Mirror Basket Jacket Sweater Scarf Boots
Sandals Umbrella Wallet Watch Necklace Bracelet Pillow Curtain Carpet Bookcase Desk Lamp Clock Vase Planter Skillet Mug
Saucepan Pitcher Apron Toolbox Hammer Tent Hammock Bicycle Helmet Skateboard Kite Puzzle Chessboard Guitar Violin Drum
Flute Speaker Camera Tripod Keyboard Telescope Compass Globe Easel Sketchbook Perfume Soap Bell"""


@dataclass(frozen=True)
class SyntheticSpec:
    """What a synthetic log is a function of; ConfigError on values that make none.

    ``events_per_user`` is the mean of good events, of which every user has 5 or more; ``bad_share`` the share of rows
    with a fault. Shards have ``rows_per_shard`` rows or fewer, all the same number to within one.
    """

    num_rows: int
    num_items: int = 2_000
    num_categories: int = 40
    seed: int = 0
    events_per_user: float = 30.0
    bad_share: float = 0.02
    rows_per_shard: int = 1_000_000
    start_time_s: int = 1_704_067_200  # 2024-01-01, UTC
    num_days: int = 90

    def __post_init__(self) -> None:
        limits = {
            "num_rows": (1_000, 10**12),
            "num_items": (60, 10**7),
            "num_categories": (4, len(_CATEGORIES.split())),
            "seed": (0, 2**63 - 1),
            "events_per_user": (8, min(100, self.num_items // 3)),
            "bad_share": (0.0, 0.4),
            "rows_per_shard": (1_000, _ID_STRIDE),
            "num_days": (10, 10_000),
            "start_time_s": (1, _LATEST_S - self.num_days * 86_400),
        }
        for field, (least, most) in limits.items():
            if not least <= getattr(self, field) <= most:
                option = f" ({_OPTIONS[field]})" if field in _OPTIONS else ""
                raise ConfigError(f"{field}={getattr(self, field)}{option} makes no log: use {least} to {most}")


@dataclass(frozen=True)
class Truth:
    """What is known of some shards, as sums that add up; ``bad_rows`` by ``REASONS``.

    The hits are expected ones in the ``TOP`` items ranked for each sampled user, who has seen all good events but the
    last and is asked for that one: ranked by the user's true probabilities, which no model beats, and by popularity.
    """

    num_rows: int
    num_users: int
    bad_rows: dict[str, int]
    users_sampled: int
    oracle_hits: float
    popularity_hits: float

    def to_json(self) -> dict[str, Any]:
        """Counts and expected recalls, as plain values."""
        tree = asdict(self)
        for ranking in ("oracle", "popularity"):
            tree[f"{ranking}_recall_at_{TOP}"] = tree.pop(f"{ranking}_hits") / self.users_sampled
        return tree


@dataclass(frozen=True)
class Shard:
    """A part of the log, with all events of its users.

    ``events``, by arrival: ``user_id``, ``item_id``, ``event_type``, ``timestamp`` (seconds) and ``session_id``.
    ``users``: ``user_id``, and ``country``, which says nothing about taste.
    """

    events: pa.Table
    users: pa.Table
    bad_rows: dict[str, int]
    truth: Truth


@dataclass(frozen=True)
class World:
    """The items, numbered by category and then by popularity within it, and how likely each is.

    ``starts`` (categories + 1,) are first items; ``within`` (items,) is an item's probability given its category, and
    ``cumulative`` the running sum of it; ``popularity`` (categories,) is a category's probability over all users.
    """

    starts: Ints
    category: Ints
    within: Floats
    cumulative: Floats
    popularity: Floats
    item_id: Ints


@dataclass(frozen=True)
class Histories:
    """Good events, by user and then time, and the tastes behind them.

    ``sizes`` (users,) counts events, whose columns are (events,). ``favourites`` (sessions, 3) are categories, maybe
    one twice, of probabilities ``weights`` (users, 3); the rest goes to all categories by popularity.
    """

    sizes: Ints
    user: Ints
    session: Ints
    item: Ints
    time_s: Ints
    event: Ints
    favourites: Ints
    weights: Floats


def num_shards(spec: SyntheticSpec) -> int:
    """How many shards the log has."""
    return -(-spec.num_rows // spec.rows_per_shard)


def catalogue(spec: SyntheticSpec) -> pa.Table:
    """The items: ``item_id`` (ascending, with gaps), ``title`` (no two alike), ``category`` and ``price``."""
    rng = np.random.default_rng([spec.seed, 1])
    world = build_world(spec)
    first, second, last = _ADJECTIVES.split(), _PLACES.split(), _CATEGORIES.split()[: spec.num_categories]
    pairs = np.tile(np.arange(len(first) * len(second)), (spec.num_categories, 1))
    numeral, place = np.divmod(np.arange(spec.num_items) - world.starts[world.category], pairs.shape[1])
    pair = rng.permuted(pairs, axis=1)[world.category, place]
    title = [
        f"{first[p // len(second)]} {second[p % len(second)]} {last[c]}" + (f" {n + 1}" if n else "")
        for p, c, n in zip(pair, world.category, numeral, strict=True)
    ]
    price = np.exp(rng.normal(rng.normal(3.2, 0.7, spec.num_categories)[world.category], 0.4)).clip(0.5).round(2)
    category = pa.array(last).take(pa.array(world.category))
    table = pa.table({"item_id": world.item_id, "title": title, "category": category, "price": price})
    return table.take(pa.array(np.argsort(world.item_id)))


def shard(spec: SyntheticSpec, index: int) -> Shard:
    """Shard ``index`` of the log, whatever else is made; ValueError where there is no such shard.

    No user's good events repeat an item or a moment. A faulty row has exactly one fault and is otherwise a good one.
    """
    shards = num_shards(spec)
    if not 0 <= index < shards:
        raise ValueError(f"index={index} is no shard: use 0 to {shards - 1}")
    rng = np.random.default_rng([spec.seed, 2, index])
    num_rows = spec.num_rows // shards + (index < spec.num_rows % shards)
    num_bad = round(num_rows * spec.bad_share)
    world = build_world(spec)
    histories = build_histories(spec, world, num_rows - num_bad, rng)
    num_users = len(histories.sizes)
    first_id = (index + 1) * _ID_STRIDE
    country = rng.choice(list(_COUNTRIES), num_users, p=list(_COUNTRIES.values()))
    users = pa.table({"user_id": first_id + np.arange(num_users), "country": country})
    bad = np.diff(np.arange(len(REASONS) + 1) * num_bad // len(REASONS))
    events = _log(world, histories, np.repeat(np.arange(len(REASONS)), bad), first_id, rng)
    sampled = np.sort(rng.choice(num_users, min(_SAMPLED_USERS, num_users), replace=False))
    oracle, popularity = expected_hits(world, histories, sampled)
    bad_rows = dict(zip(REASONS, bad.tolist(), strict=True))
    truth = Truth(num_rows, num_users, bad_rows, len(sampled), float(oracle.sum()), float(popularity.sum()))
    return Shard(events, users, bad_rows, truth)


def merge_truth(parts: Sequence[Truth]) -> Truth:
    """The truth of all these shards together; ValueError where there are none."""
    if not parts:
        raise ValueError("parts=[] leaves nothing to merge: give the truth of one shard or more")
    sums = {name: sum(getattr(part, name) for part in parts) for name in vars(parts[0]) if name != "bad_rows"}
    return Truth(bad_rows={reason: sum(part.bad_rows[reason] for part in parts) for reason in REASONS}, **sums)


def build_world(spec: SyntheticSpec) -> World:
    """The world that all shards of ``spec`` share."""
    rng = np.random.default_rng([spec.seed, 0])
    reached = np.cumsum(rng.lognormal(0.0, 0.25, spec.num_categories))
    ends = (reached / reached[-1] * (spec.num_items - spec.num_categories)).round().astype(np.int64)
    starts = np.append(0, ends + np.arange(1, spec.num_categories + 1))
    category = np.repeat(np.arange(spec.num_categories), np.diff(starts))
    mass = 1 / (np.arange(spec.num_items) - starts[category] + 1)  # Zipf
    within = mass / np.add.reduceat(mass, starts[:-1])[category]
    popularity = rng.lognormal(0.0, 0.3, spec.num_categories)
    item_id = 1_000 + 3 * rng.permutation(spec.num_items)
    return World(starts, category, within, np.cumsum(within), popularity / popularity.sum(), item_id)


def build_histories(spec: SyntheticSpec, world: World, num_events: int, rng: Rng) -> Histories:
    """``num_events`` good events, of as many users as that takes.

    A session favours the categories of the user's last one, at times with another in place of one of them. An item is
    drawn from the session's taste again and again, until it is one that the user has not had.
    """
    sizes = _user_sizes(spec, num_events, rng)
    user = np.repeat(np.arange(len(sizes)), sizes)
    opens = rng.random(num_events) < 1 / _SESSION_EVENTS
    opens[np.cumsum(sizes) - sizes] = True
    session = np.cumsum(opens) - 1
    favourites = _drift(world, user[opens], rng)
    weights = rng.standard_gamma(2.0, (len(sizes), _FAVOURITES))
    weights *= _FAVOURITE_MASS / weights.sum(1, keepdims=True)
    item = _draw_unseen(world, sizes, user, favourites[session], weights, rng)
    time_s = _times(spec, sizes, user, opens, rng)
    event = np.searchsorted(np.cumsum(list(_EVENTS.values())[:2]), rng.random(num_events), side="right")
    return Histories(sizes, user, session, item, time_s, event, favourites, weights)


def expected_hits(world: World, histories: Histories, users: Ints) -> tuple[Floats, Floats]:
    """For each of ``users`` (ascending), the probability that the last item is among the best unseen ones.

    Best first by the last session's taste, then by popularity. The last item has the taste's probabilities, scaled to
    add up to 1 over unseen items. A category's best unseen items are among as many as were seen and ``TOP`` more.
    """
    last = np.cumsum(histories.sizes)[users] - 1
    taste = (1 - histories.weights[users].sum(1, keepdims=True)) * world.popularity
    for slot, favourite in enumerate(histories.favourites[histories.session[last]].T):
        taste[np.arange(len(users)), favourite] += histories.weights[users, slot]
    rows = np.full(len(histories.sizes), -1)
    rows[users] = np.arange(len(users))
    row = rows[histories.user]
    row[last] = -1
    row, item = row[row >= 0], histories.item[row >= 0]
    unseen = 1 - np.bincount(row, taste[row, world.category[item]] * world.within[item], minlength=len(users))

    is_near = np.arange(len(world.category)) - world.starts[world.category] < histories.sizes[users].max() + TOP
    seen = row[is_near[item]], (np.cumsum(is_near) - 1)[item[is_near[item]]]
    own = taste[:, world.category[is_near]] * world.within[is_near]
    common = np.tile(world.popularity[world.category[is_near]] * world.within[is_near], (len(users), 1))
    own[seen] = common[seen] = 0.0
    best = [np.argpartition(-mass, TOP - 1, axis=1)[:, :TOP] for mass in (own, common)]
    oracle, popularity = (np.take_along_axis(own, columns, 1).sum(1) / unseen for columns in best)
    return oracle, popularity


def _user_sizes(spec: SyntheticSpec, num_events: int, rng: Rng) -> Ints:
    """Events of each user, adding up to ``num_events``: a cut gamma; what is short of a user goes to others."""
    extra = rng.gamma(2.0, (spec.events_per_user - _LEAST_EVENTS) / 2, num_events // _LEAST_EVENTS + 1)
    drawn = np.minimum(_LEAST_EVENTS + extra.round().astype(np.int64), min(_MOST_EVENTS, spec.num_items // 2))
    ends = np.cumsum(drawn)
    whole = int(np.searchsorted(ends, num_events))
    spare = num_events - int(ends[whole - 1])
    if spare >= _LEAST_EVENTS:
        return np.append(drawn[:whole], spare)
    return drawn[:whole] + np.bincount(np.arange(spare) % whole, minlength=whole)


def _drift(world: World, users: Ints, rng: Rng) -> Ints:
    """Favourites of sessions, (sessions, 3), given the user of each."""
    fresh = rng.choice(len(world.popularity), (len(users), _FAVOURITES), p=world.popularity)
    replaced = np.where(rng.random(len(users)) < _DRIFT, rng.integers(_FAVOURITES, size=len(users)), -1)
    changed = (replaced[:, None] == np.arange(_FAVOURITES)) | (np.diff(users, prepend=-1) > 0)[:, None]
    since = np.maximum.accumulate(np.where(changed, np.arange(len(users))[:, None], 0), axis=0)
    return np.take_along_axis(fresh, since, 0)


def _draw_unseen(world: World, sizes: Ints, user: Ints, favourites: Ints, weights: Floats, rng: Rng) -> Ints:
    """Items of events, drawn in order and anew where the user has had one.

    All are drawn at once, and of the events of a user that hold the same item all but the first draw anew. An item
    never leaves an event but for an earlier one, so this ends where drawing one by one would.
    """
    starts, reached = np.cumsum(sizes) - sizes, np.cumsum(weights, axis=1)
    item, slot = np.zeros(len(user), dtype=np.int64), np.arange(len(user)) - starts[user]
    user_shift = len(world.category).bit_length() + _SLOT_BITS
    checked = redrawn = np.arange(len(user))
    while len(redrawn):
        item[redrawn] = _draw(world, favourites[redrawn], reached[user[redrawn]], rng)
        keys = np.sort((user[checked] << user_shift) | (item[checked] << _SLOT_BITS) | slot[checked])
        repeats = keys[1:][(keys[1:] >> _SLOT_BITS) == (keys[:-1] >> _SLOT_BITS)]
        redrawn = starts[repeats >> user_shift] + (repeats & ((1 << _SLOT_BITS) - 1))
        checked = checked[np.isin(user[checked], repeats >> user_shift)]
    return item


def _draw(world: World, favourites: Ints, reached: Floats, rng: Rng) -> Ints:
    """An item for each row of favourite categories and their cumulative probabilities, both (rows, 3)."""
    choice = (rng.random((len(favourites), 1)) >= reached).sum(1)
    category = favourites[np.arange(len(favourites)), np.minimum(choice, _FAVOURITES - 1)]
    other = choice == _FAVOURITES
    category[other] = rng.choice(len(world.popularity), int(other.sum()), p=world.popularity)
    place = np.searchsorted(world.cumulative, category + rng.random(len(category)), side="right")
    return np.asarray(np.clip(place, world.starts[category], world.starts[category + 1] - 1))


def _times(spec: SyntheticSpec, sizes: Ints, user: Ints, opens: npt.NDArray[np.bool_], rng: Rng) -> Ints:
    """Seconds since 1970, rising within a user: gaps of minutes, and sessions spread evenly over the log's days."""
    starts = np.cumsum(sizes) - sizes
    minutes = 1 + rng.exponential(150.0, len(user)).astype(np.int64)
    gaps = np.where(opens, _LONGEST_GAP_S, np.minimum(minutes, _LONGEST_GAP_S))
    busy, idle = np.cumsum(gaps), np.cumsum(np.where(opens, rng.exponential(1.0, len(user)), 0.0))
    busy -= (busy[starts] - gaps[starts])[user]
    idle -= np.append(0.0, idle[starts[1:] - 1])[user]
    ends = np.cumsum(sizes) - 1
    whole = idle[ends] + rng.exponential(1.0, len(sizes))
    pace = (spec.num_days * 86_400 - busy[ends]) / whole
    return np.asarray(spec.start_time_s + busy + (idle * pace[user]).astype(np.int64))


def _log(world: World, histories: Histories, faults: Ints, first_id: int, rng: Rng) -> pa.Table:
    """The good rows and, for each of ``faults``, a copy of a good row of its own with that fault, up to a day late."""
    num_good = len(histories.item)
    source = np.append(np.arange(num_good), rng.choice(num_good, len(faults), replace=False))
    arrival = histories.time_s[source] - histories.time_s.min()
    arrival[num_good:] += rng.integers(86_400, size=len(faults))
    row_bits = len(source).bit_length()
    order = np.sort((arrival << row_bits) | np.arange(len(source))) & ((1 << row_bits) - 1)
    source, fault = source[order], np.append(np.full(num_good, -1, dtype=np.int8), faults.astype(np.int8))[order]
    item, time_s, event = world.item_id[histories.item[source]], histories.time_s[source], histories.event[source]

    has = {reason: fault == code for code, reason in enumerate(REASONS)}
    item[has["unknown_item"]] += 1  # ids are three apart
    time_s[has["time_out_of_range"]] = np.resize(_WRONG_TIMES_S, has["time_out_of_range"].sum())
    event[has["unknown_event"]] = list(_EVENTS).index("impression")
    no_event = has["unknown_event"] & (np.arange(len(source)) % 2 == 0)
    columns = {
        "user_id": pa.array(first_id + histories.user[source], mask=has["null_user"]),
        "item_id": pa.array(item, mask=has["null_item"]),
        "event_type": pa.array(list(_EVENTS)).take(pa.array(event, mask=no_event)),
        "timestamp": pa.array(time_s, mask=has["null_time"]),
        "session_id": first_id + histories.session[source],
    }
    return pa.table(columns)
