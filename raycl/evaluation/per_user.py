"""What was measured of each user: the table that an evaluation keeps, and that two of them are compared by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from raycl.evaluation import lists, metrics
from raycl.evaluation.lists import Catalogue
from raycl.evaluation.metrics import Flags, Floats
from raycl.evaluation.ranking import Block, Float32s, Ranking
from raycl.evaluation.segments import Segments

ALL = "all"
KEYS = ("user", "model", "items", "num_targets")
"""Columns besides those of ``users_columns`` and the metrics; ``items`` is ``all`` or a segment of the targets."""


@dataclass(frozen=True)
class Question:
    """What is measured of every ranking."""

    ks: tuple[int, ...]
    catalogue: Catalogue
    item_segments: tuple[Segments, ...]
    rating: tuple[float, float] | None = None
    """Low and high, where the towers predict ratings."""


def metric_names(question: Question, *, auc: bool) -> list[str]:
    """The columns of metrics, in order."""
    names = [metrics.at(name, k) for k in question.ks for name in metrics.ACCURACY]
    kinds = [name for name in lists.QUALITIES if name != "calibration" or question.catalogue.shares is not None]
    names += [metrics.at(name, k) for k in question.ks for name in kinds]
    return names + ["auc"] * auc + ["squared_error"] * (question.rating is not None)


def users_column(segments: Segments) -> str:
    """The column that says which of the segments a user is of."""
    return f"users.{segments.name}"


def rows_of(
    question: Question,
    model: str,
    block: Block,
    ranking: Ranking,
    chosen: Flags,
    users: Any,
    user_segments: Sequence[Segments],
    *,
    predicts: bool = False,
) -> pl.DataFrame:
    """A row for each ``chosen`` user (users of the block,) with a target, and one for each item segment it has one in.

    ``users`` are the raw ids of the block; with ``predicts`` the scores of the ranking stand for ratings.
    """
    frames = [
        _frame(question, model, block, ranking, wanted, label, chosen, predicts=predicts)
        for label, wanted in _wanted(question, block)
    ]
    frame = pl.concat([part for part in frames if part.height] or frames[:1], how="diagonal")
    places = frame["user"].to_numpy()
    columns = [pl.Series("user", pa.array(users).take(pa.array(places)))]
    for segments in user_segments:
        labels = pl.Series(segments.labels, dtype=pl.String)
        columns.append(
            labels.gather(segments.codes[block.users][places].astype(np.int64)).alias(users_column(segments))
        )
    return frame.with_columns(columns)


def _wanted(question: Question, block: Block) -> Iterator[tuple[str, Flags]]:
    """Each segment of the targets, and which wanted cells are of it."""
    yield ALL, np.ones(len(block.wanted[0]), dtype=np.bool_)
    for segments in question.item_segments:
        codes = segments.codes[block.wanted[1]]
        for code, label in enumerate(segments.labels):
            if (mine := codes == code).any():
                yield f"{segments.name}={label}", mine


def _frame(
    question: Question,
    model: str,
    block: Block,
    ranking: Ranking,
    wanted: Flags,
    label: str,
    chosen: Flags,
    *,
    predicts: bool,
) -> pl.DataFrame:
    owner, item = block.wanted[0][wanted], block.wanted[1][wanted]
    num_targets = np.bincount(owner, minlength=len(block))
    kept = np.flatnonzero(chosen & (num_targets > 0))
    cells = np.sort(owner * block.num_items + item)
    ranked = ranking.rows[kept]
    hits = np.isin(kept[:, None] * block.num_items + ranked, cells) & (ranked >= 0)
    found = metrics.accuracy(hits, num_targets[kept], question.ks)
    if ranking.higher is not None and ranking.same is not None:
        found["auc"] = metrics.auc(owner, ranking.higher[wanted], ranking.same[wanted], block.num_others)[kept]
    if predicts and question.rating is not None and ranking.scores is not None:
        error = _squared_error(question.rating, ranking.scores[wanted], block.rating[wanted])
        total = np.bincount(owner, weights=error, minlength=len(block))
        found["squared_error"] = total[kept] / num_targets[kept]
    if label == ALL:
        found |= lists.qualities(question.catalogue, ranked, question.ks, block.history[kept])
    columns: dict[str, Any] = {
        "user": kept,
        "model": [model] * len(kept),
        "items": [label] * len(kept),
        "num_targets": num_targets[kept].astype(np.int32),
        **{name: values.astype(np.float32) for name, values in found.items()},
    }
    strings = {"model": pl.String, "items": pl.String}
    return pl.DataFrame(columns, schema_overrides=strings).with_columns(pl.selectors.float().fill_nan(None))


def _squared_error(scale: tuple[float, float], cosines: Float32s, ratings: Float32s) -> Floats:
    """Of each target, how far off the rating that its cosine stands for is; ratings are cut to the scale."""
    low, high = scale
    predicted = low + (cosines.clip(-1.0, 1.0) + 1.0) / 2.0 * (high - low)
    return np.asarray((predicted - ratings.clip(low, high)) ** 2, dtype=np.float64)
