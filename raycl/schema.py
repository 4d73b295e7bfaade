"""The columns of each hand-off, and the names of its files."""

from __future__ import annotations

import pyarrow as pa

SPLITS = ("train", "val", "test")
"""In time order: a part may look at itself and at the parts before it, never after."""

BOUNDS = ("train_from", "val_from", "test_from")
"""Columns of sequences: where the targets of each part begin."""

PAIRS_FORMAT = 4
"""Part of the fingerprint of pairs; goes up when the same log and config make other files."""

SEQUENCES = "sequences"
CATALOGUE_FILE = "vocab/catalogue.parquet"
USERS_FILE = "vocab/users.parquet"
ITEM_FEATURES_FILE = "vocab/item_features.parquet"
USER_FEATURES_FILE = "vocab/user_features.parquet"
FEATURES_FILE = "vocab/features.json"
REPORT_FILE = "report.json"
REPORT_PAGE = "report.html"


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


def events(user: pa.DataType, item: pa.DataType, *, weights: bool = True, splits: bool = True) -> pa.Schema:
    """One cleaned log row, between the two passes of the pairs stage.

    Without ``weights`` they are those of the event types; ``splits`` are for a split by column.
    """
    return pa.schema(
        [
            ("user", user),
            ("item", item),
            ("time_ms", pa.int64()),
            *([("weight", pa.float32())] if weights else []),
            ("event", pa.uint8()),
            *([("split", pa.int8())] if splits else []),
        ]
    )


def sequences(user: pa.DataType, *, event_types: bool = False) -> pa.Schema:
    """One user's events, in the order of their parts and within a part in time order.

    Targets of training are those from ``train_from`` to before ``val_from``, then those of validation up to
    ``test_from``, then those of test; what is before a target's part is context to it. Events of equal time are in no
    order, so none of them is in another's history. ``items`` are rows of the vocabulary, ``user_row`` the row of the
    user table or -1, and ``events`` places in the config's ``event_weights``.
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
        ]
    )


def vocabulary(item: pa.DataType) -> pa.Schema:
    """One item a row, in the order of its ``row``, which it keeps in later versions.

    An item is ``retired`` that an earlier version had and that may be retrieved no more. ``log_count`` is its good rows
    in the log, ``train_count`` its events in training, and ``train_targets`` the training pairs whose target it is,
    which is how often an epoch draws it.
    """
    counts = ("log_count", "train_count", "train_targets")
    return pa.schema(
        [("row", pa.int32()), ("item", item), ("retired", pa.bool_()), *((name, pa.int64()) for name in counts)]
    )


def described(schema: pa.Schema) -> dict[str, str]:
    """Column names and types as a manifest keeps them."""
    return {name: str(schema.field(name).type) for name in schema.names}
