"""What is before and after the tasks of an evaluation: what they share, and the version that they make."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycl import lineage
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import CorruptRelease, InputError, RayclError
from raycl.evaluation import baselines, bootstrap, per_user, summary, table_columns, tasks
from raycl.evaluation.baselines import Fitted
from raycl.evaluation.lists import Catalogue
from raycl.evaluation.per_user import Question
from raycl.evaluation.protocol import Protocol
from raycl.evaluation.tasks import Job, Shared
from raycl.model import embed, weights
from raycl.storage import tables
from raycl.storage.versions import WORK, Version

log = logging.getLogger(__name__)

_BASELINES = f"{WORK}/baselines.npz"
_FIT = "baselines"


@dataclass(frozen=True)
class Measured:
    """What the tasks of all files told together."""

    files: list[int]
    """Those with users who were measured."""
    models: list[str]
    num_users: int

    def groups(self, most: float) -> list[list[int]]:
        """The files in at most so many runs."""
        number = max(min(len(self.files), int(most)), 1)
        return [self.files[start::number] for start in range(number)]


def fit_baselines(job: Job) -> dict[str, Any]:
    """Leave what the baselines learned for the other tasks; the record says what was chosen and left out."""
    if (record := job.draft.task_done(_FIT)) is not None:
        return record
    config, active = job.config.baselines, ~job.pairs.retired()
    num_events = int(job.pairs.train_counts().sum())
    if num_events > config.most_events:
        reason = f"{num_events:,} training events are more than evaluation.baselines.most_events={config.most_events:,}"
        fitted = Fitted(left_out=dict.fromkeys(config.names, reason))
    elif config.names:
        fitted = baselines.fit(tasks.training_events(job.pairs, active), config, job.config.seed)
    else:
        fitted = Fitted()
    content = io.BytesIO()
    np.savez(content, **fitted.arrays())  # type: ignore[arg-type]  # its stub takes the arrays for its own option
    job.draft.store.write(_BASELINES, content.getvalue())
    record = {"settings": fitted.settings, "left_out": fitted.left_out}
    job.draft.finish_task(_FIT, record)
    return record


def shared(job: Job, config: Config, towers: Version) -> Shared:
    """What every task reads; the baselines lie ready.

    Raises CorruptRelease where towers and pairs are of other versions, and RayclError for a vector that is not finite.
    """
    pairs, active = job.pairs, ~job.pairs.retired()
    spec = weights.load_spec(towers.store)
    if spec.num_items != pairs.num_items:
        raise CorruptRelease(
            f"towers {towers.name} know {spec.num_items:,} items and pairs {towers.manifest.inputs['pairs']} have"
            f" {pairs.num_items:,}: they were not made together; run 'raycl train --force'"
        )
    vectors = embed.items(weights.load_item(towers.store), tasks.item_features(pairs))[active]
    _require_finite(pairs, towers, vectors)
    catalogue = Catalogue(pairs.train_counts()[active], vectors, table_columns.item_shares(config, pairs, active))
    segments = table_columns.item_segments(config, pairs, active)
    return Shared(
        Question(job.config.ks, catalogue, segments, _rating(towers.manifest.config)),
        active,
        table_columns.user_segments(config, pairs),
        _fitted(job),
    )


def _fitted(job: Job) -> Fitted:
    record = job.draft.task_done(_FIT) or {"settings": {}, "left_out": {}}
    with np.load(io.BytesIO(job.draft.store.read(_BASELINES)), allow_pickle=False) as found:
        return Fitted.from_arrays(dict(found), dict(record["settings"]), dict(record["left_out"]))


def _require_finite(pairs: Pairs, towers: Version, vectors: tasks.Vectors) -> None:
    broken = ~np.isfinite(vectors).all(axis=1)
    if broken.any():
        item = pairs.vocabulary()["item"][int(np.flatnonzero(~pairs.retired())[broken.argmax()])].as_py()
        raise RayclError(
            f"{int(broken.sum()):,} of {len(vectors):,} item vectors of towers {towers.name} are not finite, one of"
            f" them of item {item!r}: lower train.learning_rate and train again"
        )


def _rating(config: Mapping[str, Any]) -> tuple[float, float] | None:
    """The scale of the ratings that the towers were trained to predict, where they were."""
    for term in config.get("loss", {}).get("terms", ()):
        if term["kind"] == "rating":
            return float(term["low"]), float(term["high"])
    return None


def metric_names(job: Job, found: Shared) -> list[str]:
    """The metrics of every user."""
    return per_user.metric_names(found.question, auc=job.config.auc)


def measured(job: Job, records: Sequence[Mapping[str, Any]]) -> Measured:
    """What the files hold together; InputError where nobody could be measured."""
    files = [number for number, record in enumerate(records) if record["users"]]
    if not files:
        raise InputError(
            f"the {job.config.part} part holds no user with an item to find: look at pairs.split and"
            f" pairs.min_user_events"
        )
    return Measured(files, list(records[files[0]]["models"]), sum(int(record["users"]) for record in records))


def sum_up(job: Job, names: Sequence[str], files: Sequence[int]) -> dict[str, Any]:
    """Leave the sums over the users of these files; the record names them."""
    config = job.config
    found = summary.merged(
        summary.sums_of(
            summary.read_users(job.draft.store, tasks.users_file(number)), names, config.resamples, config.seed
        )
        for number in files
    )
    path = f"{WORK}/sums-{files[0]:06d}.npz"
    job.draft.store.write(path, summary.pack(found))
    return {"path": path, "keys": list(found)}


def finish(
    job: Job,
    config: Config,
    held: Version,
    found: Shared,
    users: Measured,
    told: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, float]], Mapping[str, str]],
    inputs: Mapping[str, str],
) -> Version:
    """Put everything into one table and commit; ``told`` are the records of the sums, of coverage and of suspects."""
    names = metric_names(job, found)
    read = (
        summary.unpack(job.draft.store.read(record["path"]), [(model, segment) for model, segment in record["keys"]])
        for record in told[0]
    )
    spread = dict(zip(users.models, told[1], strict=True))
    table = summary.table(summary.merged(read), names, users.models, spread)
    tables.write(job.draft.store, summary.METRICS_FILE, tasks.to_arrow(table))
    for feature, reason in told[2].items():
        log.warning("%s may know the future: %s", feature, reason)
    protocol = Protocol.of(
        config, job.pairs.rules, held.manifest.fingerprint, len(found.question.catalogue.train_counts), names
    )
    overall = summary.overall(table)
    facts = {
        **overall,
        "models": users.models,
        "baseline_settings": found.fitted.settings,
        "left_out": found.fitted.left_out,
        "suspects": dict(told[2]),
        "intervals": summary.intervals(table),
        "intervals_by": bootstrap.METHOD,
        "part": config.evaluation.part,
        "protocol": {"name": protocol.name, **protocol.to_json()},
        "split": job.pairs.rules.split.kind,
    }
    job.draft.store.write("metrics.json", json.dumps(overall, indent=2).encode())
    return job.draft.commit(
        inputs=inputs,
        config=lineage.part(config, "evaluations"),
        counts={"users": users.num_users},
        facts=facts,
    )
