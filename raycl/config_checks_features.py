"""Settings of tables, features and towers that are each possible and together are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raycl.config_encode import PROJECTION

if TYPE_CHECKING:
    from raycl.config import Config, Feature, TableSource

_RELEASE_COLUMNS = ("item", "title", "train_count", "train_targets")


def _versions_have_a_table(config: Config) -> str | None:
    for name, table, _ in _tables(config):
        if table.version is not None and table.format == "parquet":
            return f"{name}.version={table.version} is of {name}.format=delta or iceberg: set that, or leave it out"
    return None


def _defaults_are_read(config: Config) -> str | None:
    for name, table, columns in _tables(config):
        for column, value in table.defaults.items():
            if column not in columns:
                named = ", ".join(dict.fromkeys(columns))
                return f"{name}.defaults.{column}={value}: {name} reads no such column; it names {named}"
    return None


def _tables(config: Config) -> list[tuple[str, TableSource, list[str]]]:
    """Every source with its field of the config and the columns that are read of it."""
    found: list[tuple[str, TableSource, list[str]]] = [
        (f"logs.{position}", log, log.columns.names) for position, log in enumerate(config.logs)
    ]
    if items := config.items:
        title = [items.title_column] if items.title_column else []
        described = [feature.column for feature in items.features]
        encoded = [name for encoding in items.encode for name in encoding.of]
        found.append(("items", items, [items.id_column, *title, *described, *encoded, *items.where, *items.display]))
    if users := config.users:
        found.append(("users", users, [users.id_column, *(feature.column for feature in users.features)]))
    return found


def _features_are_distinct(config: Config) -> str | None:
    for name, features in _features(config):
        first: dict[str, int] = {}
        for position, feature in enumerate(features):
            if first.setdefault(feature.column, position) != position:
                return (
                    f"{name}.{position}.column={feature.column} is {name}.{first[feature.column]} already: remove one"
                    f" of them, or copy the column under another name in the table"
                )
    return None


def _features(config: Config) -> list[tuple[str, tuple[Feature, ...]]]:
    """Every list of features with its field of the config."""
    return [
        ("items.features", config.items.features if config.items else ()),
        ("users.features", config.users.features if config.users else ()),
        ("context", config.context),
    ]


def _context_is_carried(config: Config) -> str | None:
    carried = config.logs[0].columns.context
    for position, feature in enumerate(config.context):
        if feature.column not in carried:
            named = f"has {', '.join(carried)}" if carried else "is empty"
            return (
                f"context.{position}.column={feature.column} is not carried by the pairs, since"
                f" logs.0.columns.context {named}: name the column there"
            )
        if feature.kind == "vector":
            return f"context.{position}.kind=vector: a log's context holds single values; use another kind"
    return None


def _encodings_are_features(config: Config) -> str | None:
    items = config.items
    made = [encoding.column for encoding in items.encode] if items is not None else []
    for position, name in enumerate(made):
        assert items is not None
        field = f"items.encode.{position}.column={name}"
        if name in made[:position]:
            return f"{field} is there twice: take one of them out, or give it another name"
        if name in (items.id_column, items.title_column, *items.display, *items.where):
            return f"{field} is a column of the table already: give it another name"
        kinds = [feature.kind for feature in items.features if feature.column == name]
        if kinds != ["vector"]:
            read = f"is a feature of kind={kinds[0]}" if kinds else "is read by no feature"
            return f"{field} {read}: name it in items.features with kind: vector and its length"
        for other in (read for encoding in items.encode for read in encoding.of):
            if other == name:
                return f"{field} is read by items.encode too, which reads columns of the table: take it out of 'of'"
    return None


def _encoders_can_be_tuned(config: Config) -> str | None:
    for position, encoding in enumerate(config.items.encode if config.items else ()):
        if encoding.fine_tune is not None and encoding.model == PROJECTION:
            return (
                f"items.encode.{position}.fine_tune trains the layers of a transformer, and model={PROJECTION} has"
                f" none: name a transformer in model, or leave fine_tune out"
            )
    return None


_OF_ONE_KIND = {"num_hashes": ("hashed", 2), "transform": ("numeric", "standard"), "ngrams": ("text", None)}


def _features_fit_their_kind(config: Config) -> str | None:
    for name, features in _features(config):
        for position, feature in enumerate(features):
            if problem := _misfit(feature):
                return f"{name}.{position}.{problem}"
    return None


def _misfit(feature: Feature) -> str | None:
    """What of a feature its kind has no use for, or lacks."""
    for setting, (kind, unset) in _OF_ONE_KIND.items():
        if feature.kind != kind and (value := getattr(feature, setting)) != unset:
            return f"{setting}={value} is of kind={kind}, and the kind is {feature.kind}: set that or leave it out"
    if feature.num_buckets is not None and not feature.buckets:
        return (
            f"num_buckets={feature.num_buckets} is of kind=hashed, kind=text and transform=buckets, and the kind is"
            f" {feature.kind}: leave it out"
        )
    if feature.kind == "vector" and feature.length is None:
        return f"length is not set: say how many numbers a vector of '{feature.column}' has"
    if feature.kind != "vector" and feature.length is not None:
        return f"length={feature.length} is of kind=vector, and the kind is {feature.kind}: set that or leave it out"
    return None


def _heads_divide(config: Config) -> str | None:
    model = config.model
    if model.pooling != "transformer" or model.dim % model.history_heads == 0:
        return None
    divisors = [heads for heads in range(1, model.dim + 1) if model.dim % heads == 0]
    near = sorted(divisors, key=lambda heads: abs(heads - model.history_heads))[:2]
    return (
        f"model.history_heads={model.history_heads} must divide model.dim={model.dim}: use"
        f" {' or '.join(map(str, sorted(near)))}"
    )


def _display_is_free(config: Config) -> str | None:
    for position, column in enumerate(config.items.display if config.items else ()):
        if column in _RELEASE_COLUMNS:
            remedy = "name it in items.title_column" if column == "title" else "rename the column in the table"
            return f"items.display.{position}={column} is a column that a release has of its own: {remedy}"
    return None


def _items_are_described(config: Config) -> str | None:
    if config.model.item_id or (config.items is not None and config.items.features):
        return None
    return "model.item_id=false with no items.features leaves nothing to tell items apart: name features or set it true"


def _start_has_embeddings(config: Config) -> str | None:
    if config.train.item_start == "random" or config.model.item_id:
        return None
    return (
        f"train.item_start={config.train.item_start} is of items' own embeddings, which model.item_id=false does"
        f" without: leave one of them out"
    )


RULES = (
    _versions_have_a_table,
    _defaults_are_read,
    _features_are_distinct,
    _features_fit_their_kind,
    _encodings_are_features,
    _encoders_can_be_tuned,
    _context_is_carried,
    _heads_divide,
    _display_is_free,
    _items_are_described,
    _start_has_embeddings,
)
"""Each returns what is wrong, or None, in the order that a person would look."""
