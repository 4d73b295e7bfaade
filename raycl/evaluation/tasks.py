"""Evaluation of one file of held-out sequences: read, embed the users, rank by every model, keep what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import torch

from raycl import schema
from raycl.config import EvaluationConfig
from raycl.data import states
from raycl.data.columns import whole
from raycl.data.handoff import Pairs
from raycl.data.hashing import hash_ids
from raycl.data.packed import Flags, Ints, Sequences, Spans, has_targets, ranges
from raycl.errors import CorruptRelease, RayclError
from raycl.evaluation import baselines, feature_leaks, leaks, lists, per_user, perturbed, ranking, segments, topk
from raycl.evaluation.baselines import Fitted
from raycl.evaluation.per_user import Question
from raycl.evaluation.ranking import Block, Rank, Ranking
from raycl.evaluation.segments import Segments
from raycl.model import inputs
from raycl.model.inputs import FeatureRows
from raycl.model.users import UserSide
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Draft

Vectors = npt.NDArray[np.float32]
Approximate = Callable[[Vectors, int], Ints]
"""Of user vectors (users, dim) the vocabulary rows (users, k) that an index finds, the best first, -1 where it ends."""

_PROBED_USERS = 200_000
"""Whose events are looked through for features that know the future."""

TOWERS, POPULARITY, INDEX = "towers", "popularity", "index"


@dataclass(frozen=True)
class Job:
    """What every task needs to know."""

    draft: Draft
    pairs: Pairs
    towers: Store
    config: EvaluationConfig
    seed: int = 0
    """Of the pairs"""
    approximate: Approximate | None = None

    @property
    def files(self) -> tuple[tuple[str, int], ...]:
        """Path and number of pairs of each file that is measured."""
        return self.pairs.files(self.config.part)


@dataclass(frozen=True)
class Shared:
    """What all tasks read, and none writes."""

    question: Question
    active: Flags
    """Of each row of the vocabulary, whether it may be retrieved, (rows,); all else here has a row an active item."""
    user_segments: tuple[Segments, ...]
    """By row of the user table."""
    fitted: Fitted


def users_file(number: int) -> str:
    """What was measured of the users of one file."""
    return f"users/part-{number:06d}.parquet"


def exposed_file(number: int) -> str:
    """How often the lists of one file held each item."""
    return f"{WORK}/exposed/part-{number:06d}.parquet"


def held_file(number: int) -> str:
    """Some of the events of one file's users, for ``feature_leaks``."""
    return f"{WORK}/held/part-{number:06d}.parquet"


def measure_file(job: Job, number: int, shared: Shared) -> dict[str, Any]:
    """Measure the users of one file, a row a user, model and segment of the targets; the record counts the users.

    Raises RayclError, naming it, for a leak, a vector that is not finite, and items that the vocabulary has not.
    """
    task = f"file-{number:06d}"
    if (record := job.draft.task_done(task)) is not None:
        return record
    pairs, config = job.pairs, job.config
    side, described = UserSide.load(job.towers), user_features(pairs)
    ids, sequences = _read(pairs, job.files[number][0], config.part, shared.active, job.seed, side.columns)
    asked, spans = states.before_targets(sequences, pairs.rules, config.part), sequences.spans(config.part, pairs.rules)
    history, users = asked.history, {TOWERS: side.vectors(asked, described)}
    if config.perturbed_share:
        changed = perturbed.both(history, hash_ids(ids), np.flatnonzero(shared.active), config)
        for how, other in changed.items():
            users[f"{TOWERS}_{how}"] = side.vectors(replace(asked, history=other), described)
    for vectors in users.values():
        _require_finite(vectors, ids)
    # The rule that makes a pair, so that who is measured does not depend on who else is in the file.
    measured = (history >= 0).sum(1) >= min(pairs.rules.min_history, pairs.rules.max_history)
    named = replace(sequences, items=(np.cumsum(shared.active) - 1)[sequences.items].astype(np.int32))
    known = segments.age(spans.context_end - sequences.offsets[:-1], config.new_below)
    divided = [known, *(one.take(sequences.user_row, missing=True) for one in shared.user_segments)]
    tables.write(job.draft.store, held_file(number), _held(sequences, spans, len(job.files)))
    ranks = _ranks(job, shared, users)
    frames, exposed = [], {model: _Exposed(config.ks) for model in ranks}
    num_items, repeats = len(shared.question.catalogue.train_counts), not config.exclude_met
    for block in ranking.blocks(named, spans, num_items, config.users_per_block, repeats=repeats):
        chosen, mine = measured[block.users], ids[block.users.start : block.users.stop]
        for model, rank in ranks.items():
            found = rank(block, min(max(config.ks), block.num_items))
            frames.append(
                per_user.rows_of(
                    shared.question, model, block, found, chosen, mine, divided, predicts=model.startswith(TOWERS)
                )
            )
            exposed[model].add(found.rows[chosen & (block.num_targets > 0)])
    if frames:
        frame = pl.concat(frames, how="diagonal_relaxed")
        tables.write(job.draft.store, users_file(number), to_arrow(frame))
        tables.write(
            job.draft.store,
            exposed_file(number),
            pa.concat_tables(counts.table(model) for model, counts in exposed.items()),
        )
    whole_lists = (pl.col("model") == TOWERS) & (pl.col("items") == per_user.ALL)
    num_users = sum(part.filter(whole_lists).height for part in frames)
    record = {"users": num_users, "models": list(ranks)}
    job.draft.finish_task(task, record)
    return record


def _ranks(job: Job, shared: Shared, users: dict[str, Vectors]) -> dict[str, Rank]:
    """Every model's way to rank."""
    config, fitted = job.config, shared.fitted
    device = "cuda" if torch.cuda.is_available() else "cpu"
    items = topk.without_copy(shared.question.catalogue.vectors).to(device)
    found: dict[str, Rank] = {}
    for model, vectors in users.items():
        scorer = ranking.by_vectors(torch.from_numpy(vectors), items)
        found[model] = ranking.exact(scorer, auc=config.auc, device=device)
    if job.approximate is not None:
        found[INDEX] = _of_index(job.approximate, users[TOWERS], shared.active)
    counted = {POPULARITY: shared.question.catalogue.train_counts, **fitted.counts}
    found |= {name: ranking.exact(ranking.by_counts(counts), auc=config.auc) for name, counts in counted.items()}
    for name, near in fitted.neighbours.items():
        found[name] = ranking.exact(ranking.by_neighbours(near), auc=config.auc)
    for name, factors in fitted.factors.items():
        found[name] = ranking.exact(_als(factors, config, fitted.settings[name]["als_alpha"]), auc=config.auc)
    return found


def _als(factors: Vectors, config: EvaluationConfig, alpha: float) -> ranking.Scorer:
    def fold_in(history: Any) -> Vectors:
        return baselines.als_users(factors, history, config.baselines.als_regularization, alpha)

    return ranking.by_factors(fold_in, topk.without_copy(factors))


def _of_index(approximate: Approximate, users: Vectors, active: Flags) -> Rank:
    """What an index finds of the items that are not left out, asked for as many more as are."""
    places = np.append(np.cumsum(active) - 1, -1)

    def rank(block: Block, k: int) -> Ranking:
        user, item = block.left_out
        most = int(np.bincount(user, minlength=1).max())
        found = places[approximate(users[block.users], min(k + most, block.num_items))]
        cells = np.arange(len(block))[:, None] * block.num_items + found
        met = np.isin(cells, user * block.num_items + item) | (found < 0)
        first = np.argsort(met, axis=1, kind="stable")[:, :k]
        return Ranking(np.where(np.take_along_axis(met, first, 1), -1, np.take_along_axis(found, first, 1)))

    return rank


@dataclass
class _Exposed:
    """How often each item was in the first k places, for each k."""

    ks: tuple[int, ...]

    def __post_init__(self) -> None:
        self._found: dict[int, list[Ints]] = {k: [] for k in self.ks}

    def add(self, rows: Ints) -> None:
        for k, parts in self._found.items():
            listed = rows[:, :k]
            parts.append(listed[listed >= 0])

    def table(self, model: str) -> pa.Table:
        counted = {k: np.unique(np.concatenate(parts), return_counts=True) for k, parts in self._found.items()}
        items = np.concatenate([rows for rows, _ in counted.values()])
        return pa.table(
            {
                "model": pa.array([model] * len(items), pa.string()),
                "k": np.repeat(list(counted), [len(rows) for rows, _ in counted.values()]),
                "item": items.astype(np.int32),
                "count": np.concatenate([counts for _, counts in counted.values()]),
            }
        )


def exposure(job: Job, written: list[int], model: str, num_items: int) -> dict[str, float]:
    """Coverage and Gini index of one model's lists at each k, over the files that were ``written``."""
    totals = {k: np.zeros(num_items, dtype=np.int64) for k in job.config.ks}
    for number in written:
        table = pl.from_arrow(tables.read(job.draft.store, exposed_file(number)))
        assert isinstance(table, pl.DataFrame)
        for k, total in totals.items():
            mine = table.filter((pl.col("model") == model) & (pl.col("k") == k))
            total[mine["item"].to_numpy()] += mine["count"].to_numpy()
    found = {f"coverage_at_{k}": lists.coverage(total) for k, total in totals.items()}
    return found | {f"gini_at_{k}": lists.gini(total) for k, total in totals.items()}


def _held(sequences: Sequences, spans: Spans, num_files: int) -> pa.Table:
    """``feature_leaks.Held`` of every n-th user, so that all files together have no more than fits one process."""
    some = np.arange(0, len(sequences), max(-(-len(sequences) * num_files // _PROBED_USERS), 1))
    context, owner = ranges(sequences.offsets[:-1][some], spans.context_end[some])
    targets, target_owner = ranges(spans.first[some], spans.stop[some])
    places = np.concatenate([context, targets])
    users = sequences.user_row[some[np.concatenate([owner, target_owner])]]
    is_target = np.arange(len(places)) >= len(context)
    return pa.table({"user": users, "item": sequences.items[places], "is_target": is_target})


def suspects(job: Job, num_files: int) -> dict[str, str]:
    """Features that know the future, each with what gave it away."""
    held = pa.concat_tables(tables.read(job.draft.store, held_file(number)) for number in range(num_files))
    user, item, is_target = (whole(held[name]).to_numpy(zero_copy_only=False) for name in held.column_names)
    events = feature_leaks.Held(user.astype(np.int64), item.astype(np.int64), is_target)
    found: dict[str, str] = {}
    if (encoded := job.pairs.encoded("users")) is not None:
        found |= feature_leaks.of_users(events, job.pairs.encoders("users"), encoded, job.pairs.num_items)
    if (encoded := job.pairs.encoded("items")) is not None:
        found |= feature_leaks.of_items(events, job.pairs.encoders("items"), encoded, job.pairs.train_counts())
    return found


def training_events(pairs: Pairs, active: Flags) -> baselines.Events:
    """What training knows, as rows of users and of active items."""
    users, items, times, num_users = [], [], [], 0
    for path, _ in pairs.files("train"):
        sequences = Sequences.from_table(_table(pairs, path, ()), "train").trained_on()
        users.append(num_users + np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets)))
        items.append((np.cumsum(active) - 1)[sequences.items])
        times.append(sequences.times_ms)
        num_users += len(sequences)
    user, item, time_ms = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (users, items, times))
    return baselines.Events(user, item, time_ms, num_users, int(active.sum()))


def _read(pairs: Pairs, path: str, part: str, active: Flags, seed: int, more: Sequence[str]) -> tuple[Any, Sequences]:
    """Raw ids and sequences of the users with targets, once they hold no leak and no item that is not active."""
    table = _table(pairs, path, ("user", "events", *more))
    table = table.filter(pa.array(has_targets(table, part)))
    ids, sequences = whole(table["user"]), Sequences.from_table(table)
    outside = (sequences.items < 0) | (sequences.items >= len(active))
    outside[~outside] = ~active[sequences.items[~outside]]
    if outside.any():
        raise CorruptRelease(
            f"{pairs.store.uri}/{path} holds {int(outside.sum()):,} events of items that are not in the catalogue of"
            f" {int(active.sum()):,} items, one of row {int(sequences.items[outside][0])}: its vocabulary is of another"
            f" version; run 'raycl pairs --force', and train and evaluate again"
        )
    leaks.require_none_in_sequences(pairs, path, table, sequences, seed)
    return ids, sequences


def _table(pairs: Pairs, path: str, more: tuple[str, ...]) -> pa.Table:
    columns = tables.column_names(pairs.store, path)
    wanted = ["items", "weights", "times_ms", "user_row", *schema.BOUNDS, *more]
    return tables.read(pairs.store, path, [name for name in wanted if name in columns])


def _require_finite(vectors: Vectors, ids: Any) -> None:
    broken = ~np.isfinite(vectors).all(axis=1)
    if broken.any():
        raise RayclError(
            f"{int(broken.sum()):,} of {len(vectors):,} user vectors are not finite, one of them of user"
            f" {ids[int(broken.argmax())].as_py()!r}: lower train.learning_rate and train again"
        )


def to_arrow(frame: pl.DataFrame) -> pa.Table:
    """The frame in types that Parquet has."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def user_vectors(pairs: Pairs, towers: Store, sequences: Sequences, part: str) -> npt.NDArray[np.float32]:
    """Vectors (users, dim) of each user's state before the first target of ``part``."""
    return UserSide.load(towers).vectors(states.before_targets(sequences, pairs.rules, part), user_features(pairs))


def user_features(pairs: Pairs) -> FeatureRows:
    """Features of the user table, and a last row for users who are not in it."""
    encoded = pairs.encoded("users")
    return inputs.from_table(encoded, pairs.encoders("users"), encoded.num_rows if encoded else 0, unknown_row=True)


def item_features(pairs: Pairs) -> FeatureRows:
    """Features of every item of the vocabulary."""
    return inputs.from_table(pairs.encoded("items"), pairs.encoders("items"), pairs.num_items)
