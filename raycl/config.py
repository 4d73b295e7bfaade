"""The one typed config of the whole journey: frozen, and checked before any cluster starts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raycl import config_checks
from raycl.config_answers import AnswersConfig
from raycl.config_encode import Encoding
from raycl.config_evaluation import EvaluationConfig as EvaluationConfig
from raycl.config_index import GateConfig as GateConfig
from raycl.config_index import IndexConfig as IndexConfig
from raycl.config_loss import LossConfig
from raycl.config_nightly import FineTune as FineTune
from raycl.config_nightly import NightlyConfig as NightlyConfig
from raycl.config_pretrain import Pretrain
from raycl.config_search import SearchConfig
from raycl.config_serving import ServingConfig as ServingConfig
from raycl.config_towers import EnsembleConfig
from raycl.config_towers import Feature as Feature
from raycl.config_towers import ModelConfig as ModelConfig
from raycl.config_tracking import TrackingConfig as TrackingConfig
from raycl.config_validation import Cosine, EarlyStop, Schedule, Validation
from raycl.config_values import Count, HeldShare, Moment, Name, NumWorkers, OneOrMore, Plain, Positive, Share
from raycl.config_values import Section as Section
from raycl.config_values import Workers as Workers


class Columns(Section):
    """Which column of a log holds what; ``None`` means that the log has no such column."""

    user: Name = "user_id"
    """Whole numbers, or text of 1 to 1,024 bytes; rows with any other id are quarantined, here and in ``item``."""
    item: Name = "item_id"
    time: Name | None = "timestamp"
    event: Name | None = None
    """Event type; without it every row is an event of weight 1."""
    weight: Name | None = None
    """A factor on the event's weight, finite and not negative."""
    split: Name | None = None
    """``train``, ``val`` or ``test``; read by ``pairs.split.kind: column`` only."""
    context: Annotated[tuple[Name, ...], OneOrMore] = ()
    """Columns that every event carries along into its pair: whole numbers, floats, truth values or strings, null where
    nothing is known; the same names in all logs."""

    @property
    def names(self) -> list[str]:
        """Every column that is read, each once."""
        named = (self.user, self.item, self.time, self.event, self.weight, self.split, *self.context)
        return list(dict.fromkeys(name for name in named if name))

    @property
    def words(self) -> list[str]:
        """The columns that are read as one of a few words, and as nothing else."""
        others = {self.user, self.item, self.time, self.weight, *self.context}
        return [name for name in (self.event, self.split) if name and name not in others]


class TableSource(Section):
    """Where a table lies, on local disk or S3, and how its files make one table.

    Folders named ``key=value`` (hive partitions) give their files the column ``key``, of integers where every value is
    one and of strings otherwise; ``__HIVE_DEFAULT_PARTITION__`` is null, and a column in the file itself goes first.
    """

    uri: Name
    """``parquet``: a file, a folder or a pattern, in which ``*`` stays within a folder and ``**`` goes through folders;
    ``delta``: the folder of the table; ``iceberg``: its ``.metadata.json`` file, or the folder of a table that has a
    ``version-hint.text``."""
    format: Literal["parquet", "delta", "iceberg"] = "parquet"
    """``delta`` and ``iceberg`` need the extra of that name."""
    version: Count | None = None
    """Version of a Delta table, or snapshot of an Iceberg table; by default the current one."""
    defaults: dict[Name, Plain] = Field(default_factory=dict)
    """By column: its value in every row of the files that lack it, of the type that it has elsewhere."""


class LogSource(TableSource):
    """One log of events."""

    columns: Columns = Columns()
    weight_scale: Literal["linear", "log"] = "linear"
    """``log``: an event weighs ``log(1 + weight)``, for counts such as plays, of which some are thousands."""
    time_unit: Literal["s", "ms", "us", "ns", "order"] = "s"
    """Unit of an integer time column; timestamps carry their own. ``order`` for one that only says what came first,
    from 0 on: a time of 0 in any other unit is quarantined, since logs write it for a time that they do not know."""
    since: Moment | None = None
    """Only events from this moment on, a date or a time in UTC. Files and row groups that hold none are not read; other
    rows from outside the range are counted as ``outside_range``."""
    until: Moment | None = None
    """Only events before this moment."""
    date_partition: Annotated[tuple[Name, ...], OneOrMore] = ()
    """Partition keys that name the time of all events below them: a date (``dt``), or several from the year down to the
    hour (``[year, month, day]``). Folders from outside the range are not opened, whatever times they hold."""


class ItemTable(TableSource):
    """The catalogue: what may be retrieved, and what an item is."""

    id_column: Name = "item_id"
    title_column: Name | None = "title"
    features: tuple[Feature, ...] = ()
    encode: tuple[Encoding, ...] = ()
    """Columns of vectors that are made of the table's words, for features of ``kind: vector``."""
    where: dict[Name, Plain] = Field(default_factory=dict)
    """By column: the value that an item has there, null for none. Other rows of the table are no items, and events of
    them are quarantined as ``unknown_item``."""
    display: tuple[Name, ...] = ()
    """Columns that an answer carries beside id, score and title; not ``item``, ``title``, ``train_count`` or
    ``train_targets``, which a release has of its own."""


class UserTable(TableSource):
    """What is known of users besides their events."""

    id_column: Name = "user_id"
    features: tuple[Feature, ...] = ()


class LeaveLastOut(Section):
    """Each user's last event is a test target, the one before it a validation target."""

    kind: Literal["leave_last_out"]


class LeaveLastN(Section):
    """Each user's last ``num_test`` events are test targets, the ``num_val`` before them validation targets.

    All events of a user who would have none left to train on stay in training.
    """

    kind: Literal["leave_last_n"]
    num_val: Count = 1
    num_test: Count = 1

    @model_validator(mode="after")
    def _holds_out(self) -> Self:
        if self.num_val + self.num_test == 0:
            raise ValueError("nothing is held out with num_val=0 and num_test=0: set one of them to 1 or more")
        return self


class TimeSplit(Section):
    """Validation and test are the last shares of all events in time, cut at one moment for everybody."""

    kind: Literal["time"]
    val_share: HeldShare = 0.1
    test_share: HeldShare = 0.1

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        _require_training(self.val_share, self.test_share)
        return self


class ColdUsers(Section):
    """Shares of users, by hash of the id and ``seed``, are never trained on.

    The last event of such a user is a target of that part, and the earlier ones are its history.
    """

    kind: Literal["cold_users"]
    val_share: HeldShare = 0.05
    test_share: HeldShare = 0.05

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        _require_training(self.val_share, self.test_share)
        return self


class ColdItems(Section):
    """Shares of items, by hash of the id and ``seed``, are never in training; events of them are targets of that part.

    Histories hold other items alone. A user's events after the first one of a later part are dropped and counted as
    ``after_held_out``, which for users with many events is most of them: keep the shares small.
    """

    kind: Literal["cold_items"]
    val_share: HeldShare = 0.02
    test_share: HeldShare = 0.02

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        _require_training(self.val_share, self.test_share)
        return self


def _require_training(val_share: float, test_share: float) -> None:
    total = val_share + test_share
    if total >= 1.0:
        raise ValueError(f"val_share + test_share = {total:g} leaves nothing to train on: keep it under 1")


class ColumnSplit(Section):
    """The log says it itself, in ``columns.split``.

    With ``history: before``, a user's events after the first one of a later part are dropped and counted as
    ``after_held_out``: a history that held them would know the future.
    """

    kind: Literal["column"]
    hold_out_val: bool = True
    """Take one training event a user for validation where the column names none: the last one, or with
    ``history: others`` one chosen by hash."""
    train_on_val: bool = False
    """Hold nothing out for validation, whatever ``hold_out_val`` says, and train on what the column names so: for the
    last training, once the settings are chosen."""


Split = Annotated[
    LeaveLastOut | LeaveLastN | TimeSplit | ColdUsers | ColdItems | ColumnSplit, Field(discriminator="kind")
]


class UserRate(Section):
    """More than ``events`` events of one user in any ``window_s`` seconds are a robot's."""

    events: Positive
    window_s: Annotated[int, Field(ge=1, le=10**10)]


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
    """Items with fewer good rows in the log are rare."""
    rare_items: Literal["drop", "hash"] = "drop"
    """``drop``: events of rare items are left out; ``hash``: they stay, and rare items share ``rare_buckets``
    embeddings by hash of their id, beside the features that each has of its own."""
    rare_buckets: Positive = 10_000
    max_user_events: Positive = 100_000
    """A user with more events is a robot; all of that user's rows are dropped and counted."""
    max_user_rate: UserRate | None = None
    """A user who is faster in any window is a robot too."""
    repeat_window_s: Annotated[int, Field(ge=0, le=10**10)] = 0
    """An event less than this after a kept one of the same user, item and type is dropped as ``repeat``."""
    core_rounds: Count = 0
    """Rounds at most of dropping items under ``min_item_events`` and then users under ``min_user_events``, until all
    that is left has enough of the rest (the k-core); 0 counts items once, in the log, and users once, at the end."""
    keep_user_events: Positive | None = None
    """Of a user's events that are not held out, only this many of the newest are kept; the rest is ``over_cap``. Of the
    explicit negatives too, counted apart."""
    negative_events: tuple[str, ...] = ()
    """Event types that are explicit negatives, such as a skip: never in a history and never a target, each pair has the
    user's own beside it. They have no weight, and make no item or user less rare."""
    negative_below: Annotated[float, Field(gt=0.0)] | None = None
    """An event that weighs less than this is an explicit negative too, such as a low rating."""
    max_negatives: Positive = 5
    """Explicit negatives beside a pair, the newest before its target."""
    split: Split = LeaveLastOut(kind="leave_last_out")
    num_buckets: Positive | None = None
    """Parts of the shuffle and files a split; each holds whole users and fits one worker's memory. By default about 2
    million log rows each and at least 16 parts, fewer for logs under 400,000 rows."""
    incremental: bool = False
    """Keep cleaned events in the workspace (about 15 bytes a row), so that a run of this config on a log that has grown
    cleans what is new and builds only the users that it touches. What comes out is the same. With ``core_rounds``, or a
    split by time and ``keep_user_events``, all users are built all the same."""
    rows_per_fragment: Positive = 2_000_000
    """Log rows that one cleaning task holds in memory."""

    @property
    def has_negatives(self) -> bool:
        """Whether some events may be explicit negatives."""
        return bool(self.negative_events) or self.negative_below is not None


class TrainConfig(Section):
    """The training loop and where it runs."""

    epochs: Positive = 5
    global_batch_size: Positive = 2048
    """Pairs in one step over all workers."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 0.003
    table_optimizer: Literal["adam", "adagrad"] = "adam"
    """For embedding tables, of which a step reads and moves only the rows that it needs: lazy Adam, or row-wise Adagrad
    with one number of state a row in place of two vectors."""
    shard_tables: bool = False
    """Spread the rows of each embedding table over the workers, for tables that do not fit one device. A step then
    fetches the rows that it needs from the workers that hold them. The whole must fit the memory of one host."""
    table_learning_rate: Annotated[float, Field(gt=0.0)] | None = None
    """Peak rate of the tables, by default that of the rest; Adagrad wants about ten times as much."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-5
    """Of the tables, it reaches the rows of a step."""
    warmup_share: Share = 0.05
    """Share of all steps in which the learning rate rises."""
    schedule: Schedule = Cosine(kind="cosine")
    """The learning rate after that: ``cosine``, ``linear``, ``constant``, or ``plateau``, a name or a mapping such as
    ``{kind: plateau, factor: 0.3}``."""
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    """Let ``torch.compile`` fuse the towers' layers; it needs a C++ compiler, on a GPU Triton, and a minute at the
    start."""
    shuffle_pairs: Positive = 4_000_000
    """Pairs shuffled together in memory; more is closer to a full shuffle."""
    rows_per_pass: Positive | None = None
    """Rows that one pass through the towers holds in memory, by default all of a worker's. With fewer, the passes are
    made twice and the batch may be any size (gradient caching)."""
    validation: Validation = Validation()
    early_stop: EarlyStop | None = None
    """By default all epochs are trained."""
    keep: Literal["auto", "best", "last"] = "auto"
    """Which towers training ends with: those of the validation with the best recall, or the last ones; ``auto``: the
    best where something is validated."""
    checkpoint_steps: Positive = 2_000
    """Steps between checkpoints; the end of an epoch is always one."""
    num_workers: NumWorkers = Workers(min=1, max=1)
    """A number, or a range such as ``{min: 2, max: 4}``: training starts once there is room for the fewest, and goes on
    with more or fewer, at the step where it is, as nodes come and go. A global batch is the same for any number."""
    use_gpu: Literal["auto", "always", "never"] = "auto"
    """``auto``: one GPU a worker where the cluster has that many, of a range at least for the fewest."""
    threads_per_worker: Positive = 2
    item_start: Literal["random", "spectral"] = "random"
    """What the items' own embeddings begin with, where ``start_from`` names no towers. ``spectral``: the leading
    singular vectors of the table of who met what in up to about 20 million training events, so that items with common
    users begin near each other and fewer epochs do; it holds some ``4 * items * model.dim`` numbers."""
    pretrain: Pretrain | None = None
    """Self-supervised training before the training itself, such as ``{terms: reconstruction, epochs: 2}``."""
    start_from: Name | None = None
    """Finished towers, by the name of their version, whose weights training begins with: each item, and each value of a
    feature, with its own. The nightly job sets it where ``nightly.fine_tune`` is set."""
    max_failures: Count = 3
    """Restarts after a worker crashed, each from the last checkpoint. A node that says beforehand that it goes away is
    no crash, and neither is an error that another try would end in again."""


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
    event_weights: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default_factory=dict)
    """Weight of each event type, of which there are at most 256; a type that is not named here is quarantined."""
    items: ItemTable | None = None
    users: UserTable | None = None
    context: tuple[Feature, ...] = ()
    """Features of the request, of ``columns.context``: of any kind but ``vector``, and fitted when training starts."""
    pairs: PairRules = PairRules()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    index: IndexConfig = IndexConfig()
    gate: GateConfig = GateConfig()
    nightly: NightlyConfig = NightlyConfig()
    serving: ServingConfig = ServingConfig()
    ray: RayConfig = RayConfig()
    answers: AnswersConfig | None = None
    """What ``raycl run`` asks the new release at its end, and prints; by default nothing."""
    search: SearchConfig | None = None
    """What ``raycl tune`` tries; no other command reads it."""
    ensemble: EnsembleConfig | None = None
    """Towers to put together; ``model``, ``loss`` and ``train`` then shape nothing."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        for rule in config_checks.RULES:
            problem = rule(self)
            if problem:
                raise ValueError(problem)
        return self
