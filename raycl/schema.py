"""The columns of each hand-off, and the names of its files."""

from __future__ import annotations

import pyarrow as pa

SPLITS = ("train", "val", "test")
"""In time order: a part may look at itself and at the parts before it, never after."""

PAIRS_FORMAT = 3
"""Part of the fingerprint of pairs; goes up when the same log and config make other files."""

ITEMS_FILE = "vocab/items.parquet"
CATALOGUE_FILE = "vocab/catalogue.parquet"
USERS_FILE = "vocab/users.parquet"
ITEM_FEATURES_FILE = "vocab/item_features.parquet"
USER_FEATURES_FILE = "vocab/user_features.parquet"
FEATURES_FILE = "vocab/features.json"
REPORT_FILE = "report.json"
REPORT_PAGE = "report.html"


def id_type(example: pa.DataType) -> pa.DataType:
    """The type that ids of this raw type are kept in: int64, or large_string."""
    return pa.int64() if pa.types.is_integer(example) or pa.types.is_floating(example) else pa.large_string()


def events(user: pa.DataType, item: pa.DataType) -> pa.Schema:
    """One cleaned log row, between the two passes of the pairs stage."""
    return pa.schema(
        [
            ("user", user),
            ("item", item),
            ("time_ms", pa.int64()),
            ("weight", pa.float32()),
            ("event", pa.uint8()),
            ("split", pa.int8()),
        ]
    )


def sequences(user: pa.DataType) -> pa.Schema:
    """One user's events in time order; positions from ``first_target`` on are targets of this part, others context.

    Events of equal time are in no order, so none of them is in another's history.

    ``items`` are rows of the vocabulary, ``user_row`` the row of the user table or -1.
    """
    return pa.schema(
        [
            ("user", user),
            ("user_row", pa.int32()),
            ("first_target", pa.int32()),
            ("items", pa.list_(pa.int32())),
            ("weights", pa.list_(pa.float32())),
            ("times_ms", pa.list_(pa.int64())),
        ]
    )


def vocabulary(item: pa.DataType) -> pa.Schema:
    """One item a row, in the order of its row number.

    ``log_count`` is its good rows in the log, ``train_count`` its events in training, and ``train_targets`` the
    training pairs whose target it is, which is how often an epoch draws it.
    """
    counts = ("log_count", "train_count", "train_targets")
    return pa.schema([("item", item), *((name, pa.int64()) for name in counts)])


def described(schema: pa.Schema) -> dict[str, str]:
    """Column names and types as a manifest keeps them."""
    return {name: str(schema.field(name).type) for name in schema.names}
