"""The search on Ray Tune: where trials run, what they report, and when they are given up."""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator

from raycl import config_file, lineage, ray_runtime
from raycl.config import Config
from raycl.config_search import SearchConfig
from raycl.data import ray_pairs
from raycl.errors import InputError, RayclError, StoreUnavailable
from raycl.search import halving, measured, placement, shown, summary, trials
from raycl.search.board import Board
from raycl.search.trials import Trial
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Version, Workspace, fingerprint
from raycl.training import ray_train

log = logging.getLogger(__name__)

STAGE = "searches"

_LOOKS_EVERY_S = 0.2
_ENDS_WITHIN_S = 30.0
"""From the end of the search to that of the processes of trials that were given up."""

# What Tune would do besides: files of each trial in three formats, a goodbye of its own after Ctrl-C, and words on
# standard output, which may be for a machine.
_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run(config: Config, workspace: Workspace) -> tuple[Version, bool]:
    """Try ``config.search``, and leave its tables and the best config; the second value is False where it was done.

    All trials are checked before Ray starts, and their pairs are made before the first is trained. Their towers are
    versions of the workspace like any others. A search that was killed goes on: trials that ended are not tried again,
    and others train on from their checkpoints. RayclError where no trial finished.
    """
    tried = trials.of(config)
    search = config.search
    assert search is not None, "trials.of has checked it"
    ray_runtime.connect(config.ray)
    made = _pairs(tried, workspace)
    digest = fingerprint(
        STAGE,
        search.model_dump(mode="json", exclude={"max_concurrent"}),
        lineage.digest(config, "towers"),
        sorted({name for names in made for name in names}),
    )
    if done := workspace.find(STAGE, digest):
        return done, False
    workspace.store.require_writable()
    draft = workspace.draft(STAGE, digest)
    board = Board.of(draft, len(tried))
    pending = [trial for trial in tried if trial.number not in board.outcomes]
    if len(pending) < len(tried):
        log.info("search: %d of %d trials have ended before", len(tried) - len(pending), len(tried))
    if pending:
        _fit(config, search, pending, made, board, workspace)
    version = _commit(config, search, tried, made, board)
    until = time.monotonic() + _ENDS_WITHIN_S
    for trial in tried:
        if board.outcomes[trial.number]["status"] == "stopped":
            _clear(trial, made[trial.number], workspace, until)
    return version, True


def _pairs(tried: Sequence[Trial], workspace: Workspace) -> list[tuple[str, ...]]:
    """By trial and fold, the name of its pairs; those that differ in nothing are made once."""
    made: dict[str, str] = {}

    def name(config: Config) -> str:
        key = lineage.digest(config, "pairs")
        if key not in made:
            made[key] = ray_pairs.run(config, workspace)[0].name
        return made[key]

    return [tuple(name(fold) for fold in trial.folds) for trial in tried]


def _fit(
    config: Config,
    search: SearchConfig,
    pending: Sequence[Trial],
    made: Sequence[tuple[str, ...]],
    board: Board,
    workspace: Workspace,
) -> None:
    """Let Tune run the trials that have not ended; afterwards every one has its outcome on the board."""
    os.environ.update(_TUNE)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    room = placement.of(
        config.train, search.max_concurrent, ray_runtime.num_cpus(), ray_runtime.num_gpus(), config.loss
    )
    by_number = {trial.number: trial for trial in pending}
    known = {number: curve[max(curve)] for number, curve in board.curves.items() if curve}
    work = functools.partial(
        _one, by_number=by_number, made=made, metric=search.metric, known=known, workspace=workspace.store.uri
    )
    store = board.draft.store.under(f"{WORK}/ray")
    tuner = tune.Tuner(
        tune.with_resources(work, dict(room.resources)),
        param_space={"trial": tune.grid_search(list(by_number))},
        tune_config=tune.TuneConfig(
            search_alg=BasicVariantGenerator(max_concurrent=room.trials), scheduler=_Halving(search, by_number, board)
        ),
        run_config=tune.RunConfig(
            name=f"tune-{time.time_ns()}",
            storage_path=store.full(""),
            storage_filesystem=store.filesystem,
            failure_config=tune.FailureConfig(max_failures=config.train.max_failures),
            verbose=0,
        ),
    )
    ended = tuner.fit()
    for place, number in enumerate(by_number):
        if number not in board.outcomes:
            error = str(ended[place].error or "it ended without a word").strip().splitlines()[-1]
            log.warning("trial %d crashed: %s", number, error)
            board.end(number, "failed", reason=f"crashed: {error}")


def _one(
    asked: Mapping[str, Any],
    *,
    by_number: Mapping[int, Trial],
    made: Sequence[tuple[str, ...]],
    metric: str,
    known: Mapping[int, float],
    workspace: str,
) -> None:
    """One trial in a process of its own: the first fold reports its epochs, and all of them end in one outcome."""
    number = int(asked["trial"])
    trial, root, started = by_number[number], Workspace(Store(workspace)), time.monotonic()
    found: list[dict[str, Any]] = []
    curve: dict[int, float] = {}
    status, reason = "finished", ""
    try:
        for fold, (config, pairs) in enumerate(zip(trial.folds, made[number], strict=True)):
            listen = _listener(metric, known.get(number), config) if fold == 0 else _silent
            version, _ = ray_train.run(config, root, root.open("pairs", pairs), listen, here=True)
            found.append(measured.kept(version, metric))
            if fold == 0:
                points, last = version.manifest.facts["validation"], config.train.keep == "last"
                curve = measured.curve(points, metric, last=last)
    except StoreUnavailable:
        raise
    except RayclError as error:
        status, reason = "failed", str(error)
    seconds = round(time.monotonic() - started, 3)
    outcome = {"status": status, "reason": reason, "folds": found, "seconds": seconds}
    # With the whole curve: towers that were finished before the search have not reported any of it.
    tune.report({"outcome": json.dumps(outcome), "curve": json.dumps(curve)})


def _silent(_: Mapping[str, Any]) -> None:
    """The later folds of a trial are not judged before they end."""


def _listener(metric: str, known: float | None, config: Config) -> Callable[[Mapping[str, Any]], None]:
    """Reports ``measured.curve`` at the end of each epoch; ``known`` is its newest value before a kill."""
    last = config.train.keep == "last"
    newest = float("-inf") if known is None else known

    def listen(event: Mapping[str, Any]) -> None:
        nonlocal newest
        if event["validation"] is None:
            return
        value = measured.value(event["validation"], metric)
        newest = value if last else max(value, newest)
        if event["done"]:
            tune.report({"epoch": int(event["epoch"]) + 1, "value": newest, "outcome": ""})

    return listen


class _Halving(FIFOScheduler):
    """Puts what trials report on the board, and ends those that ``halving`` gives a reason to end."""

    def __init__(self, search: SearchConfig, by_number: Mapping[int, Trial], board: Board) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._search, self._trials, self._board = search, by_number, board

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number, board = int(trial.config["trial"]), self._board
        if result["outcome"]:
            for finished, measure in json.loads(result["curve"]).items():
                board.note(number, int(finished), measure)
            self._end(number, json.loads(result["outcome"]))
            return TrialScheduler.CONTINUE
        if number in board.outcomes:
            return TrialScheduler.STOP
        epoch, value = int(result["epoch"]), float(result["value"])
        board.note(number, epoch, value)
        if epoch >= self._trials[number].folds[0].train.epochs and self._search.folds == 1:
            return TrialScheduler.CONTINUE  # there is nothing left to save
        reason = halving.reason_to_stop(board.curves, number, epoch, self._search.grace_epochs, self._search.reduction)
        if reason is None:
            return TrialScheduler.CONTINUE
        seconds = round(float(result["time_total_s"]), 3)
        self._end(number, {"status": "stopped", "reason": reason, "seconds": seconds})
        return TrialScheduler.STOP

    def _end(self, number: int, outcome: dict[str, Any]) -> None:
        self._board.end(number, **outcome)
        value = self._board.value(number)
        metric = "" if value is None else f", {self._search.metric} {value:.4f}"
        why = f": {outcome['reason']}" if outcome.get("reason") else ""
        log.info("trial %d %s%s (%s)%s", number, outcome["status"], metric, self._trials[number].named, why)


def _commit(
    config: Config, search: SearchConfig, tried: Sequence[Trial], made: Sequence[tuple[str, ...]], board: Board
) -> Version:
    table = summary.trials(board, tried)
    number = summary.best(table)
    winner, draft = tried[number], board.draft
    draft.store.write(shown.BEST_FILE, config_file.dump(winner.folds[0]).encode())
    shown.write(draft.store, shown.TRIALS_FILE, table)
    shown.write(draft.store, shown.CURVES_FILE, summary.curves(board))
    shown.write(draft.store, shown.FIELDS_FILE, summary.fields(board, tried, search.fields))
    statuses = [outcome["status"] for outcome in board.outcomes.values()]
    towers = board.outcomes[number]["folds"][0]["towers"]
    return draft.commit(
        inputs={"pairs": made[number][0], "towers": towers},
        config={
            "search": search.model_dump(mode="json"),
            **lineage.part(config, "pairs"),
            **lineage.part(config, "towers"),
        },
        counts={"trials": len(tried), **{kind: statuses.count(kind) for kind in ("finished", "stopped", "failed")}},
        facts={
            "metric": search.metric,
            "best": {"trial": number, "values": dict(winner.values), "value": board.value(number), "towers": towers},
        },
    )


def _clear(trial: Trial, made: Sequence[str], workspace: Workspace, until: float) -> None:
    """Remove the unfinished towers of a trial that was given up, unless its process goes on, or somebody else's."""
    digest = lineage.digest(trial.folds[0], "towers", made[0])
    while True:
        try:
            draft = workspace.draft("towers", digest)
            break
        except InputError as error:
            if time.monotonic() > until:
                log.info("left: %s", error)
                return
            time.sleep(_LOOKS_EVERY_S)
    draft.lease.release()
    draft.store.delete_folder("")
