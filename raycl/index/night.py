"""What the page of a night tells, measured from the new release and the one that was current before it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import RayclError
from raycl.evaluation.tasks import user_features
from raycl.index import nearest, questions, release, release_diff
from raycl.index.nearest import Vectors
from raycl.index.release_diff import Asked, Diff
from raycl.index.search import Depth, ShardedIndex
from raycl.model.users import UserSide
from raycl.storage.versions import Version, Workspace

_QUERIES = 100
_BEYOND = 16
"""Times the effort that was chosen, for the deepest search of a graph that is measured."""


@dataclass(frozen=True)
class Stage:
    """A stage of the night; ``worked`` is False where it was found finished."""

    stage: str
    version: str
    worked: bool
    wall_s: float


@dataclass(frozen=True)
class Shard:
    """One part of the index."""

    items: int
    size_bytes: int


@dataclass(frozen=True)
class Point:
    """What a search of this effort finds of the deepest one's answers, and how long one query takes."""

    effort: int
    recall: float
    ms: float
    chosen: bool


@dataclass(frozen=True)
class Night:
    """All that the page tells."""

    release: str
    raycl: str
    stages: tuple[Stage, ...]
    publish: bool
    reason: str
    checks: tuple[dict[str, Any], ...]
    index: str
    """Why this kind of index."""
    shards: tuple[Shard, ...]
    curve: tuple[Point, ...]
    k: int
    num_queries: int
    diff: Diff | None
    """None without a release before."""
    missing: str
    """Why there is no diff, where one was to be."""


def measure(config: Config, workspace: Workspace, built: Version, before: str | None, stages: Sequence[Stage]) -> Night:
    """Measure the release ``built`` and how it differs from ``before``, which is current while the night runs."""
    loaded = release.load(built.store)
    how = release.search_of(built.store)
    verdict = json.loads(built.store.read(release.GATE_FILE))["verdict"]
    queries, k = _queries(config, workspace, built), min(config.gate.index_recall_at, len(loaded.index))
    diff, missing = _diff(config, workspace, built, before)
    return Night(
        release=built.name,
        raycl=built.manifest.raycl,
        stages=tuple(stages),
        publish=verdict["publish"],
        reason=verdict["reason"],
        checks=tuple(verdict["checks"]),
        index=built.manifest.facts["plan"],
        shards=tuple(_shard(built, how, number) for number in range(how.num_shards)),
        curve=curve(loaded.index, queries, k, how.depths[0]),
        k=k,
        num_queries=len(queries),
        diff=diff,
        missing=missing,
    )


def curve(index: ShardedIndex, queries: Vectors, k: int, chosen: Depth) -> tuple[Point, ...]:
    """Recall of the deepest search's answers against the time of a query, by doubling efforts.

    The deepest one looks at all lists, of a graph at ``_BEYOND`` times the candidates of ``chosen``. An exact scan has
    one point.
    """
    candidates = max(chosen.candidates, k) if chosen.candidates else 0
    most = min(index.most_effort, _BEYOND * chosen.effort) if index.is_graph else index.most_effort
    efforts = {0} if not most else {2**power for power in range(most.bit_length())} | {most, min(chosen.effort, most)}
    deepest, _ = index.probe(queries, k, most, candidates)
    points = []
    for effort in sorted(efforts):
        began = time.perf_counter()
        found = [index.probe(queries[row : row + 1], k, effort, candidates)[0] for row in range(len(queries))]
        ms = 1000 * (time.perf_counter() - began) / max(len(queries), 1)
        recall = nearest.recall(np.concatenate(found), deepest) if found else 0.0
        points.append(Point(effort, recall, ms, effort == min(chosen.effort, most)))
    return tuple(points)


def _queries(config: Config, workspace: Workspace, built: Version) -> Vectors:
    lineage = release.lineage_of(built.store)
    asking = Asked(workspace.open("pairs", lineage.pairs), workspace.open("towers", lineage.towers), config)
    side = UserSide.load(built.store.under(release.USER_TOWER))
    asked = questions.drawn(asking, side.columns).states
    some = asked.take(np.arange(len(asked))[:_QUERIES])
    return side.vectors(some, user_features(Pairs.of(asking.pairs)))


def _shard(built: Version, how: release.Search, number: int) -> Shard:
    files = [release.shard_file(number), *([release.stored_file(number)] if how.rerank else [])]
    held = release.load_shard(built.store, how, number)
    return Shard(len(held), sum(built.manifest.sizes[path] for path in files))


def _diff(config: Config, workspace: Workspace, built: Version, before: str | None) -> tuple[Diff | None, str]:
    """None and no reason without a release before; None and the reason where that one cannot be read."""
    if before is None or before == built.name:
        return None, ""
    try:
        earlier = workspace.open("releases", before)
        release.verify(earlier.store)
        return release_diff.between(config, workspace, earlier, built), ""
    except RayclError as error:
        return None, str(error)
