"""Segments and calibration by columns of the item and user tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from scipy import sparse

from raycl.config import Config
from raycl.data import column_types, feature_values, table_rows
from raycl.data.column_types import Use
from raycl.data.drift import Column
from raycl.data.handoff import Pairs
from raycl.evaluation import segments
from raycl.evaluation.metrics import Flags
from raycl.evaluation.segments import Segments


def item_segments(config: Config, pairs: Pairs, active: Flags) -> tuple[Segments, ...]:
    """Segments of the ``active`` items: by popularity, by age, and by the columns that the config names."""
    chosen, counts = config.evaluation, pairs.train_counts()[active]
    found = [segments.popularity(counts, chosen.popularity_cuts), segments.age(counts, chosen.new_below)]
    for position, name in enumerate(chosen.item_columns):
        wanted = Column(f"evaluation.item_columns.{position}", name, column_types.TITLE)
        (column,) = table_rows.of_items(config, pairs, [wanted])
        found.append(segments.of_column(name, column.filter(pa.array(active))))
    return tuple(found)


def user_segments(config: Config, pairs: Pairs) -> tuple[Segments, ...]:
    """Segments of the users by the columns that the config names, a row of the user table each."""
    if not config.evaluation.user_columns or config.users is None:
        return ()
    found = []
    for position, name in enumerate(config.evaluation.user_columns):
        wanted = Column(f"evaluation.user_columns.{position}", name, column_types.TITLE)
        (column,) = table_rows.of_users(config, pairs, [wanted])
        found.append(segments.of_column(name, column))
    return tuple(found)


def item_shares(config: Config, pairs: Pairs, active: Flags) -> sparse.csr_array | None:
    """How much of each active item each value of the calibrated column is, (items, values); None without one.

    An item of several values is of each in equal parts. Text is cut where the feature of that column is.
    """
    name = config.evaluation.calibration
    if name is None or config.items is None:
        return None
    use = Use(column_types.FEATURES["multi"].accepts, "use strings, numbers or lists of them")
    (column,) = table_rows.of_items(config, pairs, [Column("evaluation.calibration", name, use)])
    column = column.filter(pa.array(active))
    cut = [feature for feature in config.items.features if feature.column == name and feature.kind == "multi"]
    owner, texts = feature_values.texts(column, "multi" if cut else "categorical", cut[0].separator if cut else "")
    values = texts.dictionary_encode()
    codes = values.indices.to_numpy(zero_copy_only=False)
    shape = (len(column), max(len(values.dictionary), 1))
    table = sparse.csr_array((np.ones(len(owner)), (owner, codes)), shape=shape)
    table.sum_duplicates()
    table.data[:] = 1.0
    return sparse.csr_array(sparse.diags_array(1.0 / np.maximum(table.sum(axis=1), 1.0)) @ table)
