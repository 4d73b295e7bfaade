"""Tiny synthetic tables in the shape of the data sets that the recipes read: the same columns, types and splits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

NUM_USERS, NUM_ITEMS, NUM_EVENTS = 48, 36, 10
SERVICES = 3
"""Items of the shop that are none."""
_GENRES = ("Drama", "Comedy", "Horror", "Western")
_WORDS = ("red", "blue", "old", "new", "soft", "loud", "small", "wild")


def write(folder: Path) -> None:
    """Every data set, in a folder of its own; always the same rows."""
    for name, make in _SETS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for table, frame in make().items():
            frame.write_parquet(folder / name / f"{table}.parquet")


def _events() -> tuple[pl.Series, pl.Series, pl.Series]:
    """User, item and place in the user's order: users like one genre in four, and meet no item twice."""
    generator = np.random.default_rng(11)
    items = []
    for user in range(NUM_USERS):
        liked = np.where(np.arange(NUM_ITEMS) % 4 == user % 4, 8.0, 1.0)
        items.append(generator.choice(NUM_ITEMS, NUM_EVENTS, False, liked / liked.sum()))
    users = np.repeat(np.arange(NUM_USERS), NUM_EVENTS)
    order = np.tile(np.arange(NUM_EVENTS), NUM_USERS)
    return pl.Series(users + 1), pl.Series(np.concatenate(items) + 1), pl.Series(order)


def _last_out(order: pl.Series, valid: str | None = "valid") -> pl.Series:
    names = ["train"] * (NUM_EVENTS - 2) + [valid or "train", "test"]
    return pl.Series([names[place] for place in order])


def _moments(users: pl.Series, order: pl.Series) -> pl.Series:
    start = datetime(2011, 1, 1)
    return pl.Series(
        [start + timedelta(days=20 * place, minutes=user) for user, place in zip(users, order, strict=True)]
    ).cast(pl.Datetime("us"))


def _titles() -> list[str]:
    return [f"{_WORDS[item % 8]} {_WORDS[item // 8]} thing {item}" for item in range(NUM_ITEMS)]


def _genres() -> list[list[str]]:
    return [[_GENRES[item % 4], "Short"] if item % 5 == 0 else [_GENRES[item % 4]] for item in range(NUM_ITEMS)]


_IDS = pl.Series(np.arange(1, NUM_ITEMS + 1), dtype=pl.Int32)


def _films() -> pl.DataFrame:
    years = pl.Series([1950 + item for item in range(NUM_ITEMS)], dtype=pl.Int16)
    return pl.DataFrame({"item_id": _IDS, "title": _titles(), "year": years, "genres": _genres()})


def _viewers(age: str) -> pl.DataFrame:
    numbers = range(NUM_USERS)
    return pl.DataFrame(
        {
            "user_id": pl.Series([user + 1 for user in numbers], dtype=pl.Int32),
            age: pl.Series([20 + user % 5 for user in numbers], dtype=pl.Int16),
            "gender": ["FM"[user % 2] for user in numbers],
            "occupation": [f"work {user % 3}" for user in numbers],
        }
    )


def _ml_1m() -> dict[str, pl.DataFrame]:
    users, items, order = _events()
    log = pl.DataFrame({"user_id": users.cast(pl.Int32), "item_id": items.cast(pl.Int32), "event_type": "rating"})
    log = log.with_columns(pl.Series("event_type", ["rating"] * len(users)), _last_out(order, None).alias("split"))
    return {"interactions": log, "items": _films(), "users": _viewers("age_group")}


def _ml_100k() -> dict[str, pl.DataFrame]:
    users, items, order = _events()
    by_time = ["train" if place < 8 else "valid" if place == 8 else "test" for place in order]
    log = pl.DataFrame(
        {
            "user_id": users.cast(pl.Int32),
            "item_id": items.cast(pl.Int32),
            "event_type": ["rating"] * len(users),
            "rating": [float(1 + (user + item) % 5) for user, item in zip(users, items, strict=True)],
            "timestamp": _moments(users, order),
            "split": _last_out(order),
            "split_time": by_time,
        }
    )
    return {"interactions": log, "items": _films(), "users": _viewers("age")}


def _beauty() -> dict[str, pl.DataFrame]:
    users, items, order = _events()
    log = pl.DataFrame(
        {
            "user_id": [f"A{user:03d}" for user in users],
            "item_id": [f"B{item:03d}" for item in items],
            "event_type": ["review"] * len(users),
            "position": order.cast(pl.Int32),
            "split": _last_out(order),
        }
    )
    return {
        "interactions": log,
        "items": pl.DataFrame({"item_id": [f"B{item:03d}" for item in _IDS], "title": _titles()}),
    }


def _online_retail() -> dict[str, pl.DataFrame]:
    users, items, order = _events()
    cancelled = [(user + place) % 9 == 0 for user, place in zip(users, order, strict=True)]
    log = pl.DataFrame(
        {
            "user_id": users.cast(pl.Int32),
            "item_id": [f"P{item:03d}" for item in items],
            "event_type": ["cancel" if one else "purchase" for one in cancelled],
            "quantity": pl.Series([-1 if one else 1 + row % 12 for row, one in enumerate(cancelled)], dtype=pl.Int32),
            "timestamp": _moments(users, order),
        }
    )
    catalogue = pl.DataFrame(
        {
            "item_id": [f"P{item:03d}" for item in _IDS],
            "title": _titles(),
            "median_price": [0.5 + item % 4 for item in range(NUM_ITEMS)],
            "is_service": [item < SERVICES for item in range(NUM_ITEMS)],
        }
    )
    countries = ["Peru" if user % 2 else "Estonia" for user in range(NUM_USERS)]
    described = pl.DataFrame({"user_id": _viewers("age")["user_id"], "country": countries})
    return {"interactions": log, "items": catalogue, "users": described}


def _lastfm() -> dict[str, pl.DataFrame]:
    users, items, order = _events()
    log = pl.DataFrame(
        {
            "user_id": users.cast(pl.Int32),
            "item_id": items.cast(pl.Int32),
            "event_type": ["listen_total"] * len(users),
            "plays": pl.Series([10 ** (int(item) % 5) for item in items], dtype=pl.Int32),
            "split": _last_out(order),
        }
    )
    return {"interactions": log, "items": pl.DataFrame({"item_id": _IDS, "name": _titles()})}


def _gowalla() -> dict[str, pl.DataFrame]:
    users, items, order = _events()
    log = pl.DataFrame(
        {
            "user_id": users.cast(pl.Int32),
            "item_id": items.cast(pl.Int32),
            "event_type": ["checkin"] * len(users),
            "split": _last_out(order, None),
        }
    )
    places = pl.DataFrame({"item_id": _IDS, "org_id": [str(item) for item in _IDS]})
    return {"interactions": log, "items": places, "users": _viewers("age").select("user_id")}


_SETS: dict[str, Callable[[], dict[str, pl.DataFrame]]] = {
    "ml-1m": _ml_1m,
    "ml-100k": _ml_100k,
    "beauty": _beauty,
    "online-retail": _online_retail,
    "lastfm-2k": _lastfm,
    "gowalla": _gowalla,
}
