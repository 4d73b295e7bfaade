"""The one typed config of the whole journey: frozen, and checked before any cluster starts."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(min_length=1)]
_MOST_EVENT_TYPES = 256  # an event's type is one byte
_RELEASE_COLUMNS = ("item", "title", "train_count", "train_targets")
# YAML reads an unquoted `off` as false.
LogQ = Annotated[Literal["static", "off"], BeforeValidator(lambda value: "off" if value is False else value)]


class Section(BaseModel):
    """A part of the tree: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Columns(Section):
    """Which column of a log holds what; ``None`` means that the log has no such column."""

    user: Name = "user_id"
    item: Name = "item_id"
    time: Name | None = "timestamp"
    event: Name | None = None
    """Event type; without it every row is an event of weight 1."""
    weight: Name | None = None
    """A factor on the event's weight, finite and not negative."""
    split: Name | None = None
    """``train``, ``val`` or ``test``; read by ``pairs.split.kind: column`` only."""


class LogSource(Section):
    """One Parquet log: a file, a folder or a pattern, on local disk or S3."""

    uri: Name
    columns: Columns = Columns()
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    """Unit of an integer time column; timestamps carry their own."""


class Feature(Section):
    """One column that a tower reads.

    ``categorical`` one value a row; ``multi`` a list, or a string cut at ``separator``; ``numeric`` standardised;
    ``text`` words hashed into ``num_buckets``.
    """

    column: Name
    kind: Literal["categorical", "multi", "numeric", "text"] = "categorical"
    separator: Name = "|"
    num_buckets: Positive = 4096
    max_values: Positive = 100_000
    """Values kept of a categorical or multi feature, the most frequent first; the rest share "unknown"."""


class ItemTable(Section):
    """The catalogue: what may be retrieved, and what an item is."""

    uri: Name
    id_column: Name = "item_id"
    title_column: Name | None = "title"
    features: tuple[Feature, ...] = ()
    display: tuple[Name, ...] = ()
    """Columns that an answer carries beside id, score and title; not ``item``, ``title``, ``train_count`` or
    ``train_targets``, which a release has of its own."""


class UserTable(Section):
    """What is known of users besides their events."""

    uri: Name
    id_column: Name = "user_id"
    features: tuple[Feature, ...] = ()


class LeaveLastOut(Section):
    """Each user's last event is a test target, the one before it a validation target."""

    kind: Literal["leave_last_out"]


class TimeSplit(Section):
    """Validation and test are the last shares of all events in time, cut at one moment for everybody."""

    kind: Literal["time"]
    val_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    test_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.val_share + self.test_share >= 1.0:
            total = self.val_share + self.test_share
            raise ValueError(f"val_share + test_share = {total:g} leaves nothing to train on: keep it under 1")
        return self


class ColumnSplit(Section):
    """The log says it itself, in ``columns.split``.

    With ``history: before``, a user's events after the first one of a later part are dropped and counted as
    ``after_held_out``: a history that held them would know the future.
    """

    kind: Literal["column"]
    hold_out_val: bool = True
    """Take one training event a user for validation where the column names none: the last one, or with
    ``history: others`` one chosen by hash."""


Split = Annotated[LeaveLastOut | TimeSplit | ColumnSplit, Field(discriminator="kind")]


class PairRules(Section):
    """What becomes a pair, and for which part of the evaluation."""

    history: Literal["before", "others"] = "before"
    """``before``: the events strictly before the target's time; ``others``: the user's other training events, for logs
    without time."""
    kind: Literal["next_item", "item_to_item"] = "next_item"
    """``next_item``: a user's history and the item after it; ``item_to_item``: one earlier item of the user, drawn anew
    each epoch, and a later one, for "more like this"."""
    within_s: Positive | None = None
    """In an item-to-item pair: the most seconds from the earlier item to the later."""
    session_gap_s: Positive | None = None
    """In an item-to-item pair: no pause between the user's events may be longer, so that both are of one session."""
    max_history: Positive = 20
    min_history: Count = 1
    """A target with fewer events behind it is not a pair."""
    min_user_events: Positive = 2
    min_item_events: Positive = 1
    max_user_events: Positive = 100_000
    """A user with more events is a robot; all of that user's rows are dropped and counted."""
    split: Split = LeaveLastOut(kind="leave_last_out")
    num_buckets: Positive | None = None
    """Parts of the shuffle and files a split; each holds whole users and fits one worker's memory. By default about 2
    million log rows each and at least 16 parts, fewer for logs under 400,000 rows."""
    rows_per_fragment: Positive = 2_000_000
    """Log rows that one cleaning task holds in memory."""


class ModelConfig(Section):
    """The two towers."""

    dim: Positive = 64
    """Length of the vectors that are compared."""
    hidden: tuple[Positive, ...] = (128,)
    pooling: Literal["mean", "recency"] = "mean"
    """How the history becomes one vector; ``recency`` learns one weight a position."""
    item_id: bool = True
    """Give each item that training has seen an embedding of its own, besides its features."""
    id_dropout: Share = 0.1
    """Share of items whose own embedding is hidden in a training step, so that features learn to carry new items."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class LossConfig(Section):
    """The contrastive objective."""

    kind: Literal["in_batch_softmax"] = "in_batch_softmax"
    temperature: Annotated[float, Field(gt=0.0, le=10.0)] = 0.1
    log_q: LogQ = "static"
    """Correct in-batch negatives by their sampling probability; off leaves popular items punished."""


class TrainConfig(Section):
    """The training loop and where it runs."""

    epochs: Positive = 5
    global_batch_size: Positive = 2048
    """Pairs in one step over all workers."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 0.003
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-5
    warmup_share: Share = 0.05
    """Share of all steps in which the learning rate rises; then it falls as a cosine."""
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    shuffle_pairs: Positive = 4_000_000
    """Pairs shuffled together in memory; more is closer to a full shuffle."""
    checkpoint_steps: Positive = 2_000
    """Steps between checkpoints; the end of an epoch is always one."""
    num_workers: Positive = 1
    use_gpu: Literal["auto", "always", "never"] = "auto"
    """``auto``: one GPU a worker where the cluster has that many."""
    threads_per_worker: Positive = 2
    max_failures: Count = 3
    """Restarts of the worker group after a crash, each from the last checkpoint."""


class EvaluationConfig(Section):
    """What is measured, always over the full catalogue."""

    ks: Annotated[tuple[Positive, ...], Field(min_length=1)] = (10, 20)
    part: Literal["test", "val"] = "test"
    """Choose settings on ``val``, and leave ``test`` for what is published."""
    users_per_block: Positive = 512
    """At most; fewer where the catalogue is large, so that a task's scores stay within 256 MB."""


class IndexConfig(Section):
    """The sharded index of item vectors."""

    kind: Literal["auto", "flat", "ivf_flat"] = "auto"
    """``auto``: exact (flat) up to 50,000 items, inverted lists above."""
    num_shards: Positive = 2
    num_lists: Positive | None = None
    """Inverted lists over the whole index; by default 4 times the square root of the number of items."""
    items_per_block: Positive = 100_000
    use_gpu: Literal["auto", "always", "never"] = "auto"


class GateConfig(Section):
    """When a release may be published."""

    index_recall_at: Positive = 100
    """Items that the search is judged at; it is made as good at 5 and at 20 times as many, since what an answer leaves
    out is searched for too."""
    min_index_recall: Share = 0.95
    """Against exact search, with held-out users as queries; inverted lists are probed deeper until it holds."""
    num_queries: Positive = 2_000
    min_recall: Share = 0.0
    """Floor on the towers' recall at the largest ``evaluation.ks``, on the test part."""
    min_over_popularity: Annotated[float, Field(ge=0.0)] = 0.0
    """Floor on that recall divided by the popularity baseline's."""


class ServingConfig(Section):
    """The HTTP endpoint."""

    host: Name = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes a free port."""
    min_replicas: Positive = 1
    max_replicas: Positive = 2
    target_ongoing_requests: Positive = 32
    max_batch_size: Positive = 64
    batch_wait_ms: Annotated[float, Field(ge=0.0)] = 1.0
    poll_s: Annotated[float, Field(gt=0.0)] = 5.0
    """Seconds between looks for a newer release."""
    max_k: Positive = 500
    """Most items that a request may ask for; one that names no number gets 10, or this where it is less."""


class RayConfig(Section):
    """The embedded Ray of a laptop; ignored when a cluster is joined."""

    num_cpus: Positive | None = None
    object_store_bytes: Annotated[int, Field(ge=80_000_000)] | None = None


class Config(Section):
    """The whole journey, from log to answer."""

    workspace: Name
    """Folder or ``s3://`` prefix for everything that raycl makes."""
    seed: Count = 0
    logs: Annotated[tuple[LogSource, ...], Field(min_length=1)]
    event_weights: dict[str, Annotated[float, Field(gt=0.0)]] = {}
    """Weight of each event type, of which there are at most 256; a type that is not named here is quarantined."""
    items: ItemTable | None = None
    users: UserTable | None = None
    pairs: PairRules = PairRules()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    index: IndexConfig = IndexConfig()
    gate: GateConfig = GateConfig()
    serving: ServingConfig = ServingConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        for rule in (
            _workers_divide_batch,
            _split_has_its_column,
            _kind_has_its_rules,
            _events_are_weighted,
            _features_are_distinct,
            _display_is_free,
            _items_are_described,
            _gate_is_measured,
            _replicas_ordered,
        ):
            problem = rule(self)
            if problem:
                raise ValueError(problem)
        return self


def _workers_divide_batch(config: Config) -> str | None:
    batch, workers = config.train.global_batch_size, config.train.num_workers
    if batch % workers == 0 and batch // workers >= 2:
        return None
    below, above = batch // workers * workers, math.ceil(batch / workers) * workers
    choices = sorted({size for size in (below, above) if size >= 2 * workers} or {2 * workers})
    return (
        f"train.global_batch_size={batch} must divide evenly by train.num_workers={workers}, with at least two pairs"
        f" a worker: use {' or '.join(map(str, choices))}"
    )


def _split_has_its_column(config: Config) -> str | None:
    kind = config.pairs.split.kind
    needs = "split" if kind == "column" else "time"
    for position, log in enumerate(config.logs):
        if getattr(log.columns, needs) is None:
            return (
                f"pairs.split.kind={kind} needs logs.{position}.columns.{needs}, which is null: name the column or"
                f" choose another split"
            )
        if config.pairs.history == "before" and log.columns.time is None:
            return (
                f"pairs.history=before needs logs.{position}.columns.time, which is null: name the column or set"
                f" pairs.history=others"
            )
    if config.pairs.history == "others" and kind != "column":
        return f"pairs.history=others looks past the target, so pairs.split.kind={kind} would leak: use column"
    return None


def _kind_has_its_rules(config: Config) -> str | None:
    rules = config.pairs
    bounds = {name: getattr(rules, name) for name in ("within_s", "session_gap_s")}
    given = [name for name, value in bounds.items() if value is not None]
    if rules.kind == "next_item":
        if not given:
            return None
        return f"pairs.{given[0]}={bounds[given[0]]} is of pairs.kind=item_to_item: set that, or leave it out"
    if rules.history != "before":
        return f"pairs.kind=item_to_item needs an order of events, and pairs.history={rules.history}: set it to before"
    if not given:
        return "pairs.kind=item_to_item pairs any two events of a user: set pairs.within_s or pairs.session_gap_s"
    if rules.max_history != 1:
        return f"pairs.kind=item_to_item has one earlier item, and pairs.max_history={rules.max_history}: set it to 1"
    return None


def _events_are_weighted(config: Config) -> str | None:
    for position, log in enumerate(config.logs):
        if log.columns.event is not None and not config.event_weights:
            return (
                f"logs.{position}.columns.event={log.columns.event} but event_weights is empty, so every row would be"
                f" quarantined: name the event types, for example event_weights.view=1"
            )
    if len(config.event_weights) > _MOST_EVENT_TYPES:
        return (
            f"event_weights={len(config.event_weights)} event types: at most {_MOST_EVENT_TYPES} can be told apart;"
            f" give types that weigh the same one name in the log"
        )
    return None


def _features_are_distinct(config: Config) -> str | None:
    for name, table in (("items", config.items), ("users", config.users)):
        first: dict[str, int] = {}
        for position, feature in enumerate(table.features if table else ()):
            if first.setdefault(feature.column, position) != position:
                return (
                    f"{name}.features.{position}.column={feature.column} is {name}.features.{first[feature.column]}"
                    f" already: remove one of them, or copy the column under another name in the table"
                )
    return None


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


def _gate_is_measured(config: Config) -> str | None:
    if config.gate.min_index_recall > 0.0 and config.index.kind == "ivf_flat" and config.gate.num_queries < 100:
        return (
            f"gate.num_queries={config.gate.num_queries} cannot tell a recall of {config.gate.min_index_recall:g}"
            f" from chance: use at least 100"
        )
    return None


def _replicas_ordered(config: Config) -> str | None:
    low, high = config.serving.min_replicas, config.serving.max_replicas
    if low <= high:
        return None
    return f"serving.min_replicas={low} is above serving.max_replicas={high}: raise the second or lower the first"
