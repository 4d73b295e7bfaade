"""The columns of each hand-off, and the names of its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import pyarrow as pa

SPLITS = ("train", "val", "test")
"""In time order: a part may look at itself and at the parts before it, never after."""

BOUNDS = ("train_from", "val_from", "test_from")
"""Columns of sequences: where the targets of each part begin."""

NEGATIVES = ("negative_items", "negative_times_ms", "negative_events")
"""Columns of sequences: of each explicit negative of the user its item, its time and the code of its event type."""

PAIRS_FORMAT = 4
"""Part of the fingerprint of pairs; goes up when the same log and config make other files."""

SEQUENCES = "sequences"
CATALOGUE_FILE = "vocab/catalogue.parquet"
UNWANTED_FILE = "vocab/unwanted.parquet"
"""Ids of the item table's rows that are no items by ``items.where``; older versions have none."""
USERS_FILE = "vocab/users.parquet"
ITEM_FEATURES_FILE = "vocab/item_features.parquet"
USER_FEATURES_FILE = "vocab/user_features.parquet"
FEATURES_FILE = "vocab/features.json"
REPORT_FILE = "report.json"
REPORT_PAGE = "report.html"

TRACK_FILE = "track.jsonl"
STORY_FILE = "run.json"
RUN_PAGE = "run.html"
CARD_FILE = "model_card.md"


NO_CONTEXT: Mapping[str, pa.DataType] = MappingProxyType({})


def sequences_file(bucket: int) -> str:
    """The path of one bucket's users in a pairs version."""
    return f"{SEQUENCES}/part-{bucket:06d}.parquet"


def dropped_file(bucket: int) -> str:
    """The path of what rules left out of one bucket's users, in a version that a later one may go on from."""
    return f"dropped/part-{bucket:06d}.parquet"


def items_file(part: int) -> str:
    """The path of one part of the vocabulary in a pairs version."""
    return f"vocab/items/part-{part:05d}.parquet"


def id_type(example: pa.DataType) -> pa.DataType:
    """The type that ids of this raw type are kept in: int64, or large_string."""
    return pa.int64() if pa.types.is_integer(example) or pa.types.is_floating(example) else pa.large_string()


def context_type(example: pa.DataType) -> pa.DataType:
    """The type that context of this raw type is kept in: int64, double, bool, or large_string, also for nulls alone."""
    kind = example.value_type if pa.types.is_dictionary(example) else example
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    return pa.bool_() if pa.types.is_boolean(kind) else pa.large_string()


def context_column(name: str) -> str:
    """What the log's column ``name`` is called where it goes along with an event."""
    return f"context_{name}"


def context_name(column: str) -> str:
    """The log's name of a column that ``context_column`` named."""
    return column.removeprefix("context_")


def context_columns(names: Iterable[str]) -> list[str]:
    """Those of a table's columns that hold context, by their names there."""
    return [name for name in names if name.startswith(context_column(""))]


def events(
    user: pa.DataType,
    item: pa.DataType,
    *,
    weights: bool = True,
    splits: bool = True,
    context: Mapping[str, pa.DataType] = NO_CONTEXT,
) -> pa.Schema:
    """One cleaned log row, between the two passes of the pairs stage.

    Without ``weights`` they are those of the event types; ``splits`` are for a split by column. ``event`` is the place
    of the type in ``event_weights``, and after those in ``pairs.negative_events``; ``context`` are columns of the log.
    """
    return pa.schema(
        [
            ("user", user),
            ("item", item),
            ("time_ms", pa.int64()),
            *([("weight", pa.float32())] if weights else []),
            ("event", pa.uint8()),
            *([("split", pa.int8())] if splits else []),
            *((context_column(name), kind) for name, kind in context.items()),
        ]
    )


def sequences(
    user: pa.DataType,
    *,
    event_types: bool = False,
    negatives: bool = False,
    context: Mapping[str, pa.DataType] = NO_CONTEXT,
) -> pa.Schema:
    """One user's events, in the order of their parts and within a part in time order.

    Targets of training are those from ``train_from`` to before ``val_from``, then those of validation up to
    ``test_from``, then those of test; what is before a target's part is context to it. Events of equal time are in no
    order, so none of them is in another's history. ``items`` are rows of the vocabulary, ``user_row`` the row of the
    user table or -1, and ``events`` places in the config's ``event_weights``. Each column of ``context`` is a list that
    goes with the events. Explicit ``negatives`` have lists of their own, in time order.
    """
    return pa.schema(
        [
            ("user", user),
            ("user_row", pa.int32()),
            *((name, pa.int32()) for name in BOUNDS),
            ("items", pa.list_(pa.int32())),
            ("weights", pa.list_(pa.float32())),
            ("times_ms", pa.list_(pa.int64())),
            *([("events", pa.list_(pa.uint8()))] if event_types else []),
            *((context_column(name), pa.list_(kind)) for name, kind in context.items()),
            *(zip(NEGATIVES, map(pa.list_, (pa.int32(), pa.int64(), pa.uint8())), strict=True) if negatives else ()),
        ]
    )


def vocabulary(item: pa.DataType) -> pa.Schema:
    """One item a row, in the order of its ``row``, which it keeps in later versions.

    An item is ``retired`` that an earlier version had and that may be retrieved no more. ``log_count`` is its good rows
    in the log without explicit negatives, ``train_count`` its events in training, and ``train_targets`` the training
    pairs whose target it is, which is how often an epoch draws it.
    """
    counts = ("log_count", "train_count", "train_targets")
    return pa.schema(
        [("row", pa.int32()), ("item", item), ("retired", pa.bool_()), *((name, pa.int64()) for name in counts)]
    )


def described(schema: pa.Schema) -> dict[str, str]:
    """Column names and types as a manifest keeps them."""
    return {name: str(schema.field(name).type) for name in schema.names}
