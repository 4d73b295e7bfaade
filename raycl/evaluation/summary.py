"""From what was measured of each user to one table: means, intervals, segments, and how lists cover the catalogue."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from raycl.data.hashing import hash_ids
from raycl.evaluation import bootstrap, per_user
from raycl.evaluation.bootstrap import Sums
from raycl.evaluation.metrics import Floats
from raycl.storage import tables
from raycl.storage.store import Store

Key = tuple[str, str]
"""Model and segment: ``all``, ``items.<name>=<label>`` or ``users.<name>=<label>``."""

METRICS_FILE = "metrics.parquet"
_USERS_AT_ONCE = 4_096


def sums_of(frame: pl.DataFrame, names: Sequence[str], num_resamples: int, seed: int) -> dict[Key, Sums]:
    """Sums of the metrics ``names`` by model and segment over rows of ``per_user.rows_of``, with their resamples."""
    found: dict[Key, Sums] = {}
    users = frame["user"].unique(maintain_order=True)
    for start in range(0, len(users), _USERS_AT_ONCE):
        some = users.slice(start, _USERS_AT_ONCE)
        drawn = bootstrap.weights(hash_ids(some.to_arrow(compat_level=pl.CompatLevel.oldest())), num_resamples, seed)
        places = pl.DataFrame({"user": some, "place": np.arange(len(some))})
        for key, rows in _parts(frame.join(places, on="user", how="inner")):
            values = rows.select(_column(rows, name) for name in names).to_numpy()
            part = Sums.of(values, _shares(rows, names), drawn[:, rows["place"].to_numpy()])
            if key in found:
                found[key].add(part)
            else:
                found[key] = part
    return found


def _column(rows: pl.DataFrame, name: str) -> pl.Expr:
    column = pl.col(name) if name in rows.columns else pl.lit(None, pl.Float64)
    return column.cast(pl.Float64).fill_null(float("nan")).alias(name)


def _shares(rows: pl.DataFrame, names: Sequence[str]) -> Floats:
    """How much each user counts in each metric: as one, or in the mean squared error as often as it has targets."""
    shares = np.ones((rows.height, len(names)))
    for column, name in enumerate(names):
        if name == "squared_error":
            shares[:, column] = rows["num_targets"].to_numpy()
    return shares


def _parts(frame: pl.DataFrame) -> Iterator[tuple[Key, pl.DataFrame]]:
    for (model, items), rows in frame.group_by("model", "items", maintain_order=True):
        segment = per_user.ALL if items == per_user.ALL else f"items.{items}"
        yield (str(model), segment), rows
        if segment == per_user.ALL:
            for column in (name for name in frame.columns if name.startswith("users.")):
                for (label,), part in rows.group_by(column, maintain_order=True):
                    yield (str(model), f"{column}={label}"), part


def pack(sums: Mapping[Key, Sums]) -> bytes:
    """The sums as one file; ``unpack`` reads it with their keys in order."""
    content = io.BytesIO()
    np.savez(
        content,
        above=np.array([one.above for one in sums.values()]),
        below=np.array([one.below for one in sums.values()]),
        num_users=np.array([one.num_users for one in sums.values()], dtype=np.int64),
    )
    return content.getvalue()


def unpack(content: bytes, keys: Sequence[Key]) -> dict[Key, Sums]:
    """What ``pack`` made of the sums of these keys."""
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        parts = zip(keys, found["above"], found["below"], found["num_users"], strict=True)
        return {key: Sums(above, below, int(users)) for key, above, below, users in parts}


def merged(parts: Iterable[Mapping[Key, Sums]]) -> dict[Key, Sums]:
    """The sums of all parts together."""
    found: dict[Key, Sums] = {}
    for part in parts:
        for key, sums in part.items():
            if key in found:
                found[key].add(sums)
            else:
                found[key] = sums
    return found


def table(
    sums: Mapping[Key, Sums], names: Sequence[str], models: Sequence[str], spread: Mapping[str, Mapping[str, float]]
) -> pl.DataFrame:
    """A row a model, segment and metric: its ``value``, the ends of its interval, and the ``users`` that it is over.

    Models come in their order, and segments by name behind ``all``. ``spread`` is coverage and Gini index by model,
    which are no means over users and have no interval. The squared error is told as its root.
    """
    rows: list[dict[str, Any]] = []
    order = {model: place for place, model in enumerate(models)}
    for model, segment in sorted(sums, key=lambda key: (order[key[0]], key[1] != per_user.ALL, key[1])):
        one = sums[model, segment]
        ends = zip(names, *one.estimates(), strict=True)
        for name, *found in ends:
            if not np.isnan(found[0]):
                shown = "rmse" if name == "squared_error" else name
                value, low, high = map(float, np.sqrt(found) if shown == "rmse" else found)
                rows.append(_row(model, segment, shown, (value, low, high), one.num_users))
        if segment == per_user.ALL:
            for name, value in spread[model].items():
                rows.append(_row(model, segment, name, (value, float("nan"), float("nan")), one.num_users))
    schema = {"model": pl.String, "segment": pl.String, "metric": pl.String}
    floats = {"value": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    return pl.DataFrame(rows, schema=schema | floats | {"users": pl.Int64}).with_columns(
        pl.col("low", "high").fill_nan(None)
    )


def _row(model: str, segment: str, metric: str, found: tuple[float, float, float], users: int) -> dict[str, Any]:
    named = dict(zip(("value", "low", "high"), found, strict=True))
    return {"model": model, "segment": segment, "metric": metric, **named, "users": users}


def overall(found: pl.DataFrame) -> dict[str, dict[str, float]]:
    """By model, each metric over all users."""
    whole = found.filter(pl.col("segment") == per_user.ALL)
    return {
        str(model): dict(zip(rows["metric"].to_list(), rows["value"].to_list(), strict=True))
        for (model,), rows in whole.group_by("model", maintain_order=True)
    }


def intervals(found: pl.DataFrame) -> dict[str, dict[str, list[float]]]:
    """By model, the ends of each metric's interval over all users."""
    whole = found.filter((pl.col("segment") == per_user.ALL) & pl.col("low").is_not_null())
    ends: dict[str, dict[str, list[float]]] = {}
    for model, metric, low, high in whole.select("model", "metric", "low", "high").iter_rows():
        ends.setdefault(model, {})[metric] = [low, high]
    return ends


def read_users(store: Store, path: str) -> pl.DataFrame:
    """One file of what was measured of each user."""
    frame = pl.from_arrow(tables.read(store, path))
    assert isinstance(frame, pl.DataFrame)
    return frame
