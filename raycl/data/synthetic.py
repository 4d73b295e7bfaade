"""A synthetic log with known faults and a known best recall, made shard by shard from a seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

REASONS = ("null_user", "null_item", "null_time", "time_out_of_range", "unknown_event", "unknown_item", "duplicate")
"""The faults that are injected, by the names that the cleaner counts them under."""
TOP = 20
"""Length of the lists that the truth is about."""
EVENT_TYPES = ("view", "cart", "purchase")
_EVENT_SHARES = (0.80, 0.15, 0.05)
_LATEST_S = 4_102_444_800  # 2100-01-01
_WRONG_TIMES_S = (0, -1, _LATEST_S, _LATEST_S + 3_155_760_000)
_COUNTRIES = ("BR", "DE", "ES", "FR", "IN", "JP", "KE", "US")
_COUNTRY_SHARES = (0.13, 0.11, 0.08, 0.10, 0.22, 0.09, 0.08, 0.19)
_FAVOURITES = 3
_FAVOURITE_MASS = 0.92
_DRIFT = 0.1
_SESSION_EVENTS = 5
_ZIPF = 1.0
_LEAST_EVENTS = 5
_MOST_EVENTS = 200
_LONGEST_GAP_S = 3_600  # 200 of them fit in 10 days, the shortest log
_SAMPLED_USERS = 500
_USER_STRIDE = 10_000_000
_SLOT_BITS = 8  # for an event's place in its user's history

_ADJECTIVES = ["Amber", "Ancient", "Bold", "Bright", "Calm", "Clever", "Crimson", "Curious", "Distant", "Early", "Faithful", "Gentle", "Golden", "Grand", "Hidden", "Humble", "Ivory", "Jolly", "Little", "Lucky", "Mellow", "Misty", "Noble", "Patient", "Quiet", "Rustic", "Silver", "Slender", "Steady", "Sunny", "Swift", "Vivid", "Wild"]
_PLACES = ["Autumn", "Bay", "Birch", "Brook", "Canyon", "Cedar", "Cliff", "Cloud", "Coast", "Creek", "Dawn", "Delta", "Desert", "Dune", "Ember", "Fern", "Field", "Fjord", "Forest", "Garden", "Glacier", "Grove", "Harbor", "Heath", "Island", "Lagoon", "Maple", "Marsh", "Meadow", "Orchard", "Prairie", "River", "Shore", "Valley", "Willow"]
CATEGORIES = tuple(
    ["Lantern", "Kettle", "Chair", "Blanket", "Teapot", "Backpack", "Notebook", "Candle", "Mirror", "Basket", "Jacket", "Sweater", "Scarf", "Boots", "Sandals", "Umbrella", "Wallet", "Watch", "Necklace", "Bracelet", "Pillow", "Curtain", "Carpet", "Bookcase", "Desk", "Lamp", "Clock", "Vase", "Planter", "Skillet", "Saucepan", "Mug", "Pitcher", "Apron", "Toolbox", "Hammer", "Tent", "Hammock", "Bicycle", "Helmet", "Skateboard", "Kite", "Puzzle", "Chessboard", "Guitar", "Violin", "Drum", "Flute", "Speaker", "Camera", "Tripod", "Keyboard", "Telescope", "Compass", "Globe", "Easel", "Sketchbook", "Perfume", "Soap", "Bell"]
)
"""Every category there may be; its name is the last word of its items' titles, but for a numeral."""


@dataclass(frozen=True)
class SyntheticSpec:
    """What a synthetic log is a function of; ValueError on values that make none.

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
    start_time_s: int = 1_704_067_200
    """2024-01-01, UTC."""
    num_days: int = 90

    def __post_init__(self) -> None:
        self._require("num_rows", 1_000, 10**12)
        self._require("num_items", 60, 10**7)
        self._require("num_categories", 4, len(CATEGORIES))
        self._require("seed", 0, 2**63 - 1)
        self._require("events_per_user", 8, min(100, self.num_items // 3))
        self._require("bad_share", 0.0, 0.5)
        self._require("rows_per_shard", 1_000, _USER_STRIDE)
        self._require("num_days", 10, 10_000)
        self._require("start_time_s", 1, _LATEST_S - self.num_days * 86_400)

    def _require(self, field: str, least: float, most: float) -> None:
        value = getattr(self, field)
        if not least <= value <= most:
            raise ValueError(f"{field}={value} makes no log: use {least} to {most}")


@dataclass(frozen=True)
class Truth:
    """What is known of some shards, as sums that add up.

    The hits are expected ones in the ``TOP`` items ranked for each sampled user, who has seen all good events but the
    last and is asked for that one: ranked by the user's true probabilities, which no model beats, and by popularity.
    """

    num_rows: int
    num_users: int
    bad_rows: dict[str, int]
    """Rows of each of ``REASONS``."""
    users_sampled: int
    oracle_hits: float
    popularity_hits: float

    def to_json(self) -> dict[str, Any]:
        """Counts and expected recalls, as plain values."""
        return {
            "num_rows": self.num_rows,
            "num_users": self.num_users,
            "bad_rows": dict(self.bad_rows),
            "users_sampled": self.users_sampled,
            f"oracle_recall_at_{TOP}": self.oracle_hits / self.users_sampled,
            f"popularity_recall_at_{TOP}": self.popularity_hits / self.users_sampled,
        }


@dataclass(frozen=True)
class Shard:
    """A part of the log: rows in order of arrival (``user_id``, ``item_id``, ``event_type``, ``timestamp`` in seconds,
    ``session_id``) and all of their users (``user_id``, and ``country``, which says nothing about taste).
    """

    events: pa.Table
    users: pa.Table
    truth: Truth

    @property
    def bad_rows(self) -> dict[str, int]:
        """Faulty rows by reason."""
        return self.truth.bad_rows


@dataclass(frozen=True)
class World:
    """The items, numbered by category and then by popularity within it, and how likely each is.

    ``starts`` (categories + 1,) are the first items of the categories; ``within`` (items,) is an item's probability
    given its category, and ``cumulative`` (items,) adds it up, so that category c takes the interval from c to c + 1;
    ``popularity`` (categories,) is the categories' own.
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
    rank = np.arange(spec.num_items) - world.starts[world.category]
    pairs = np.tile(np.arange(len(_ADJECTIVES) * len(_PLACES)), (spec.num_categories, 1))
    numeral, place = np.divmod(rank, pairs.shape[1])
    adjective, noun = np.divmod(rng.permuted(pairs, axis=1)[world.category, place], len(_PLACES))
    title = [
        f"{_ADJECTIVES[a]} {_PLACES[b]} {CATEGORIES[c]}" + (f" {n + 1}" if n else "")
        for a, b, c, n in zip(adjective, noun, world.category, numeral, strict=True)
    ]
    level = rng.normal(3.2, 0.7, spec.num_categories)[world.category]
    price = np.maximum(np.exp(rng.normal(level, 0.4)), 0.5).round(2)
    category = pa.array(CATEGORIES).take(pa.array(world.category))
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
    first_user = (index + 1) * _USER_STRIDE
    country = pa.array(_COUNTRIES).take(pa.array(rng.choice(len(_COUNTRIES), num_users, p=_COUNTRY_SHARES)))
    users = pa.table({"user_id": first_user + np.arange(num_users), "country": country})
    bad = np.diff(np.arange(len(REASONS) + 1) * num_bad // len(REASONS))
    events = _log(world, histories, np.repeat(np.arange(len(REASONS)), bad), first_user, rng)
    sampled = np.sort(rng.choice(num_users, min(_SAMPLED_USERS, num_users), replace=False))
    oracle, popularity = expected_hits(world, histories, sampled)
    bad_rows = dict(zip(REASONS, bad.tolist(), strict=True))
    truth = Truth(num_rows, num_users, bad_rows, len(sampled), float(oracle.sum()), float(popularity.sum()))
    return Shard(events, users, truth)


def merge_truth(truths: Iterable[Truth]) -> Truth:
    """The truth of all these shards together; ValueError where there are none."""
    parts = list(truths)
    if not parts:
        raise ValueError("truths=[] leaves nothing to merge: give the truth of one shard or more")
    return Truth(
        num_rows=sum(part.num_rows for part in parts),
        num_users=sum(part.num_users for part in parts),
        bad_rows={reason: sum(part.bad_rows[reason] for part in parts) for reason in REASONS},
        users_sampled=sum(part.users_sampled for part in parts),
        oracle_hits=sum(part.oracle_hits for part in parts),
        popularity_hits=sum(part.popularity_hits for part in parts),
    )


def build_world(spec: SyntheticSpec) -> World:
    """The world that all shards of ``spec`` share."""
    rng = np.random.default_rng([spec.seed, 0])
    reached = np.cumsum(rng.lognormal(0.0, 0.25, spec.num_categories))
    ends = (reached / reached[-1] * (spec.num_items - spec.num_categories)).round().astype(np.int64)
    starts = np.append(0, ends + np.arange(1, spec.num_categories + 1))
    category = np.repeat(np.arange(spec.num_categories), np.diff(starts))
    mass = (np.arange(spec.num_items) - starts[category] + 1.0) ** -_ZIPF
    within = mass / np.add.reduceat(mass, starts[:-1])[category]
    popularity = rng.lognormal(0.0, 0.3, spec.num_categories)
    item_id = 1_000 + 3 * rng.permutation(spec.num_items)
    return World(starts, category, within, np.cumsum(within), popularity / popularity.sum(), item_id)


def build_histories(spec: SyntheticSpec, world: World, num_events: int, rng: np.random.Generator) -> Histories:
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
    event = np.searchsorted(np.cumsum(_EVENT_SHARES)[:-1], rng.random(num_events), side="right")
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
    row_of = np.full(len(histories.sizes), -1)
    row_of[users] = np.arange(len(users))
    rows = row_of[histories.user]
    rows[last] = -1
    row, item = rows[rows >= 0], histories.item[rows >= 0]
    unseen = 1 - np.bincount(row, taste[row, world.category[item]] * world.within[item], minlength=len(users))

    rank = np.arange(len(world.category)) - world.starts[world.category]
    near = np.flatnonzero(rank < histories.sizes[users].max() + TOP)
    mass = taste[:, world.category[near]] * world.within[near]
    popularity = np.tile(world.popularity[world.category[near]] * world.within[near], (len(users), 1))
    is_near = rank[item] < histories.sizes[users].max() + TOP
    seen = row[is_near], np.searchsorted(near, item[is_near])
    mass[seen] = popularity[seen] = 0.0
    best = [np.argpartition(-scores, TOP - 1, axis=1)[:, :TOP] for scores in (mass, popularity)]
    oracle, popular = (np.take_along_axis(mass, columns, 1).sum(1) / unseen for columns in best)
    return oracle, popular


def _user_sizes(spec: SyntheticSpec, num_events: int, rng: np.random.Generator) -> Ints:
    """Events of each user, adding up to ``num_events``: a cut gamma; what is short of a user goes to others."""
    most = min(_MOST_EVENTS, spec.num_items // 2)
    drawn = np.zeros(0, dtype=np.int64)
    while drawn.sum() < num_events:
        extra = rng.gamma(2.0, (spec.events_per_user - _LEAST_EVENTS) / 2, int(num_events / spec.events_per_user) + 100)
        drawn = np.append(drawn, np.minimum(_LEAST_EVENTS + extra.round().astype(np.int64), most))
    ends = np.cumsum(drawn)
    count = int(np.searchsorted(ends, num_events)) + 1
    sizes, spare = drawn[:count], num_events - int(ends[count - 1] - drawn[count - 1])
    if spare >= _LEAST_EVENTS:
        return np.append(sizes[:-1], spare)
    return sizes[:-1] + np.bincount(np.arange(spare) % (count - 1), minlength=count - 1)


def _drift(world: World, users: Ints, rng: np.random.Generator) -> Ints:
    """Favourites of sessions, (sessions, 3), given the user of each."""
    num_sessions = len(users)
    fresh = rng.choice(len(world.popularity), (num_sessions, _FAVOURITES), p=world.popularity)
    replaced = np.where(rng.random(num_sessions) < _DRIFT, rng.integers(_FAVOURITES, size=num_sessions), -1)
    since = np.arange(num_sessions)[:, None] * (replaced[:, None] == np.arange(_FAVOURITES))
    opening = np.flatnonzero(np.diff(users, prepend=-1))
    since[opening] = opening[:, None]
    return np.take_along_axis(fresh, np.maximum.accumulate(since, axis=0), 0)


def _draw_unseen(
    world: World, sizes: Ints, user: Ints, favourites: Ints, weights: Floats, rng: np.random.Generator
) -> Ints:
    """Items of events, drawn in order and anew where the user has had one.

    All are drawn at once, and of the events of a user that hold the same item all but the first draw anew. An item
    never leaves an event but for an earlier one, so this ends where drawing one by one would.
    """
    starts, reached = np.cumsum(sizes) - sizes, np.cumsum(weights, axis=1)
    item = np.zeros(len(user), dtype=np.int64)
    slot = np.arange(len(user)) - starts[user]
    item_bits = len(world.category).bit_length()
    checked = redrawn = np.arange(len(user))
    while len(redrawn):
        item[redrawn] = _draw(world, favourites[redrawn], reached[user[redrawn]], rng)
        keys = (((user[checked] << item_bits) | item[checked]) << _SLOT_BITS) | slot[checked]
        keys.sort()
        again = keys[1:][(keys[1:] >> _SLOT_BITS) == (keys[:-1] >> _SLOT_BITS)]
        again_user = again >> (item_bits + _SLOT_BITS)
        redrawn = starts[again_user] + (again & ((1 << _SLOT_BITS) - 1))
        unsettled = np.zeros(len(sizes), dtype=np.bool_)
        unsettled[again_user] = True
        checked = checked[unsettled[user[checked]]]
    return item


def _draw(world: World, favourites: Ints, reached: Floats, rng: np.random.Generator) -> Ints:
    """An item for each row of favourite categories and their cumulative probabilities, both (rows, 3)."""
    point = rng.random(len(favourites))
    choice = (point[:, None] >= reached).sum(1)
    category = favourites[np.arange(len(favourites)), np.minimum(choice, _FAVOURITES - 1)]
    other = choice == _FAVOURITES
    category[other] = rng.choice(len(world.popularity), int(other.sum()), p=world.popularity)
    place = np.searchsorted(world.cumulative, category + rng.random(len(category)), side="right")
    return np.clip(place, world.starts[category], world.starts[category + 1] - 1)


def _times(spec: SyntheticSpec, sizes: Ints, user: Ints, opens: npt.NDArray[np.bool_], rng: np.random.Generator) -> Ints:
    """Seconds since 1970, rising within a user: gaps of minutes, and sessions spread evenly over the log's days."""
    starts = np.cumsum(sizes) - sizes
    gaps = np.minimum(1 + rng.exponential(150.0, len(user)).astype(np.int64), _LONGEST_GAP_S)
    gaps[opens] = _LONGEST_GAP_S
    busy = np.cumsum(gaps)
    busy -= (busy - gaps)[starts][user]
    idle = np.cumsum(np.where(opens, rng.exponential(1.0, len(user)), 0.0))
    ...
