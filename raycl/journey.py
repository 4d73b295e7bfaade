"""The stages in their order, each on what the one before left in the workspace."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raycl import config_pretrain, lineage
from raycl.config import Config
from raycl.errors import ConfigError
from raycl.storage.store import Store, absolute
from raycl.storage.versions import Version, Workspace

# The ray_* modules are imported inside the functions: a bad config must not cost a start of Ray, and Ray must be
# imported after its environment is set.

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """What a stage left; ``worked`` is False where a finished version of the same work was found."""

    stage: str
    version: Version
    worked: bool
    wall_s: float


def workspace(config: Config) -> Workspace:
    """The workspace, at a place that every process of a cluster reads alike; ConfigError where that cannot be."""
    if os.environ.get("RAY_ADDRESS"):
        named = {"workspace": config.workspace}
        named |= {f"logs.{position}.uri": log.uri for position, log in enumerate(config.logs)}
        named |= {"items.uri": config.items.uri} if config.items else {}
        named |= {"users.uri": config.users.uri} if config.users else {}
        for field, uri in named.items():
            if "://" not in uri and not Path(uri).is_absolute():
                raise ConfigError(
                    f"{field}={uri} is relative, and on a cluster every process has a folder of its own: give an"
                    f" absolute path that all nodes share, or s3://bucket/prefix"
                )
    return Workspace(Store(absolute(config.workspace)))


def run(config: Config, report: Report, finished: Callable[[Outcome], None], *, force: bool = False) -> list[Outcome]:
    """Every stage in order; ``finished`` hears of each. GateRefused leaves the release unpublished."""
    stages: list[Callable[[], Outcome]] = [
        lambda: pairs(config, force=force),
        lambda: train(config, report, force=force),
        lambda: evaluate(config, force=force),
        lambda: index(config, force=force),
        lambda: publish(config),
    ]
    outcomes = []
    for stage in stages:
        outcomes.append(stage())
        finished(outcomes[-1])
    return outcomes


def pairs(config: Config, *, force: bool = False) -> Outcome:
    """Logs to pairs."""
    from raycl.data import ray_pairs

    return _timed("pairs", lambda: ray_pairs.run(config, workspace(config), force=force))


def train(config: Config, report: Report, *, force: bool = False) -> Outcome:
    """Pairs to towers, or finished towers to an ensemble; ``report`` hears of the epochs."""
    made_from = lineage.pairs(config, workspace(config))
    if config.ensemble is not None:
        from raycl.training import ensemble

        return _timed("train", lambda: ensemble.run(config, workspace(config), made_from, force=force))
    from raycl.training import ray_train

    def work() -> tuple[Version, bool]:
        chosen, first = config, config_pretrain.before(config)
        if first is not None:
            before, _ = ray_train.run(first, workspace(config), made_from, report, force=force)
            chosen = config_pretrain.after(config, before.name)
        return ray_train.run(chosen, workspace(config), made_from, report, force=force)

    return _timed("train", work)


def tune(config: Config) -> Outcome:
    """The search of the config: its trials' towers, their tables and the best config."""
    from raycl.search import ray_search

    return _timed("tune", lambda: ray_search.run(config, workspace(config)))


def evaluate(config: Config, *, force: bool = False, index: bool = False) -> Outcome:
    """Towers to metrics on held-out users; with ``index`` the lists of this config's release are measured too."""
    measured = lineage.towers(config, workspace(config))
    searched = None
    if index:
        from raycl.index.approximate import ReleaseSearch

        built = lineage.release(config, workspace(config))
        searched = built.name, ReleaseSearch(built.store)
    from raycl.evaluation import ray_evaluate

    return _timed(
        "evaluate", lambda: ray_evaluate.run(config, workspace(config), measured, force=force, index=searched)
    )


def index(config: Config, *, force: bool = False) -> Outcome:
    """Item tower and catalogue to a release with the gate's verdict."""
    measured = lineage.evaluation(config, workspace(config))
    towers = workspace(config).open("towers", measured.manifest.inputs["towers"])
    from raycl.index import ray_index

    return _timed("index", lambda: ray_index.run(config, workspace(config), towers, measured, force=force))


def publish(config: Config) -> Outcome:
    """Make the release current; GateRefused where the gate said no. No Ray is needed."""
    from raycl.index import publish as publishing
    from raycl.storage import pointer

    built = lineage.release(config, workspace(config))

    def write() -> tuple[Version, bool]:
        before = pointer.current(workspace(config).store)
        return built, publishing.publish(workspace(config), built) != before

    return _timed("publish", write)


def _timed(stage: str, run: Callable[[], tuple[Version, bool]]) -> Outcome:
    started = time.monotonic()
    version, worked = run()
    return Outcome(stage, version, worked, round(time.monotonic() - started, 3))
