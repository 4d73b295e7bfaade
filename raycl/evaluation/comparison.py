"""Two evaluations over the same users: how much they differ, how sure that is, and whether it may be chance."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl

from raycl.data.hashing import hash_ids
from raycl.errors import ConfigError, InputError
from raycl.evaluation import bootstrap, per_user, significance
from raycl.evaluation.bootstrap import Hashes
from raycl.evaluation.metrics import Floats
from raycl.evaluation.protocol import Protocol, require_same
from raycl.evaluation.significance import Correction
from raycl.evaluation.summary import read_users
from raycl.storage.versions import Version

_ROUNDS, _RESAMPLES = 10_000, 1_000
_USERS_AT_ONCE = 4_096
_SHOWN = {"squared_error": "rmse"}
_OWN_SPACE = "diversity"
"""Measured in the vectors of each run's own towers, so that two runs cannot be compared by it."""
METHOD = f"{significance.METHOD}, {_ROUNDS:,} rounds"


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation, for notebooks as for ``compare``."""

    version: Version

    @property
    def protocol(self) -> Protocol:
        """What it was measured by; InputError where it is of a raycl that told none."""
        plain = self.version.manifest.facts.get("protocol") or {}
        try:
            return Protocol.from_json({key: value for key, value in plain.items() if key != "name"})
        except TypeError as error:
            raise InputError(
                f"{self.version.store.uri} has no protocol that this raycl knows: run 'raycl evaluate --force'"
            ) from error

    @property
    def models(self) -> tuple[str, ...]:
        """Everything that was measured: the towers first, then the baselines."""
        return tuple(self.version.manifest.facts["models"])

    @property
    def metrics(self) -> pl.DataFrame:
        """Columns ``model``, ``segment``, ``metric``, ``value``, ``low``, ``high`` and ``users``."""
        return read_users(self.version.verified("metrics.parquet").store, "metrics.parquet")

    def users(self, model: str = "towers") -> pl.DataFrame:
        """A row for each user, and for each segment of the targets that the user has one in: every metric."""
        return pl.concat(self._users(model), how="diagonal_relaxed")

    def _users(self, model: str) -> Iterator[pl.DataFrame]:
        if model not in self.models:
            raise ConfigError(f"model={model} is not in {self.version.name}: use one of {', '.join(self.models)}")
        self.version.verified("users")
        for path in sorted(path for path in self.version.manifest.sizes if path.startswith("users/")):
            yield read_users(self.version.store, path).filter(pl.col("model") == model)


def compare(
    first: Evaluation,
    second: Evaluation,
    *,
    models: tuple[str, str] = ("towers", "towers"),
    metrics: Sequence[str] = (),
    segments: Sequence[str] = (),
    correction: Correction = "holm",
    seed: int = 0,
) -> pl.DataFrame:
    """A row a segment and metric: both means, the second less the first with its interval, and what chance would do.

    Intervals are those of the evaluations, of the difference of the same users; ``p`` is that of
    ``significance.p_values``, and ``p_corrected`` is corrected over all rows. By default all metrics of single users
    but diversity, which each run measures in its own vectors, and all segments.

    Raises InputError where the protocols differ, naming the field, or the users do; ConfigError for an unknown name.
    """
    require_same(first.protocol, second.protocol)
    names = _metrics(first, second, models, metrics)
    users = _Matched.of(first.users(models[0]), second.users(models[1]), names)
    found = users.segments()
    if unknown := sorted(set(segments) - set(found)):
        raise ConfigError(f"segment={unknown[0]} is in neither evaluation: use some of {', '.join(found)}")
    rows = [
        row
        for segment, chosen in found.items()
        if segment in (segments or found)
        for row in _compared(users, segment, chosen, names, seed)
    ]
    frame = pl.DataFrame(rows)
    return frame.with_columns(pl.Series("p_corrected", significance.corrected(frame["p"].to_numpy(), correction)))


@dataclass(frozen=True)
class _Matched:
    """The same rows of two evaluations side by side."""

    frame: pl.DataFrame
    """Keys and segments, and the ``place`` of each row's user"""
    values: tuple[Floats, Floats]
    """(rows, metrics) of each"""
    hashes: Hashes

    @classmethod
    def of(cls, first: pl.DataFrame, second: pl.DataFrame, names: Sequence[str]) -> _Matched:
        """Match by user and segment of the targets; InputError where one has rows that the other has not."""
        keys = ["user", "items"]
        first, second = first.sort(keys), second.sort(keys)
        if not first.select(keys).equals(second.select(keys)):
            alone = [one.join(other, on=keys, how="anti") for one, other in ((first, second), (second, first))]
            lone = pl.concat(alone, how="diagonal")
            raise InputError(
                f"the two evaluations are not over the same users: {lone.height:,} rows are in one alone, one of"
                f" them of user {lone['user'][0]!r}; evaluate both again with --force"
            )
        values = [
            frame.select(pl.col(name).cast(pl.Float64).fill_null(float("nan")) for name in names).to_numpy()
            for frame in (first, second)
        ]
        hashes = hash_ids(first["user"].to_arrow(compat_level=pl.CompatLevel.oldest()))
        return cls(first, (values[0], values[1]), hashes)

    def segments(self) -> dict[str, Floats]:
        """By segment, the places of its rows."""
        places = self.frame.with_row_index("place").select("place", "items", pl.col("^users\\..*$"))
        whole = places.filter(pl.col("items") == per_user.ALL)
        found = {per_user.ALL: whole["place"].to_numpy()}
        for (items,), rows in places.group_by("items", maintain_order=True):
            if items != per_user.ALL:
                found[f"items.{items}"] = rows["place"].to_numpy()
        for column in (name for name in places.columns if name.startswith("users.")):
            for (label,), rows in whole.group_by(column, maintain_order=True):
                found[f"{column}={label}"] = rows["place"].to_numpy()
        return {name: found[name] for name in sorted(found, key=lambda name: (name != per_user.ALL, name))}


def correction_of(name: str) -> Correction:
    """The correction of this name; ConfigError where there is none."""
    for known in typing.get_args(Correction):
        if name == known:
            return cast(Correction, known)
    raise ConfigError(f"correction={name} is none: use {' or '.join(typing.get_args(Correction))}")


def _metrics(first: Evaluation, second: Evaluation, models: tuple[str, str], wanted: Sequence[str]) -> list[str]:
    measured = [
        set(one.metrics.filter(pl.col("model") == model)["metric"])
        for one, model in zip((first, second), models, strict=True)
    ]
    known = [
        name
        for name in first.protocol.metrics
        if not name.startswith(_OWN_SPACE) and all((_SHOWN.get(name, name)) in names for names in measured)
    ]
    if unknown := sorted(set(wanted) - set(known)):
        raise ConfigError(f"metric={unknown[0]} cannot be compared: use some of {', '.join(known)}")
    return [name for name in known if name in (wanted or known)]


def _compared(
    users: _Matched, segment: str, chosen: Floats, names: Sequence[str], seed: int
) -> Iterator[dict[str, object]]:
    """The rows of one segment; a metric counts the users of whom both evaluations know it."""
    first, second = (values[chosen] for values in users.values)
    hashes, both = users.hashes[chosen], ~np.isnan(first) & ~np.isnan(second)
    difference = np.where(both, second - first, np.nan)
    total: bootstrap.Sums | None = None
    for start in range(0, len(chosen), _USERS_AT_ONCE):
        part = slice(start, start + _USERS_AT_ONCE)
        drawn = bootstrap.weights(hashes[part], _RESAMPLES, seed)
        sums = bootstrap.Sums.of(difference[part], np.ones_like(difference[part]), drawn)
        if total is None:
            total = sums
        else:
            total.add(sums)
    assert total is not None
    p = significance.p_values(np.where(both, difference, 0.0), hashes, _ROUNDS, seed)
    for column, (name, mean, low, high) in enumerate(zip(names, *total.estimates(), strict=True)):
        mine = both[:, column]
        if mine.any():
            yield {
                "segment": segment,
                "metric": name,
                "first": float(first[mine, column].mean()),
                "second": float(second[mine, column].mean()),
                "difference": float(mean),
                "low": float(low),
                "high": float(high),
                "users": int(mine.sum()),
                "p": float(p[column]),
            }
