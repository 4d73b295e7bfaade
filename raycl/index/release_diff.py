"""What changed from one release to another."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import RayclError
from raycl.index import build, nearest, previous, release
from raycl.storage import tables
from raycl.storage.versions import Version, Workspace

log = logging.getLogger(__name__)

_SHOWN = 20
_PARTS = ("pairs", "towers", "evaluations")


@dataclass(frozen=True)
class Change:
    """One value of both releases; ``None`` where one of them has no such value."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Moved:
    """An item, and in how many answers to the held-out users it is."""

    item: Any
    title: str
    before: int
    after: int


@dataclass(frozen=True)
class Answers:
    """The answers of both releases to the held-out users of the later one."""

    agreement: float
    """Share of the answers of the earlier release that the later one gives too."""
    num_queries: int
    k: int
    moved: tuple[Moved, ...]
    """The items whose number of answers changed most, most first."""


@dataclass(frozen=True)
class Diff:
    """All of it; items in and out are the first few of so many."""

    before: str
    after: str
    num_items: tuple[int, int]
    num_in: int
    num_out: int
    items_in: tuple[Any, ...]
    items_out: tuple[Any, ...]
    config: tuple[Change, ...]
    metrics: tuple[Change, ...]
    answers: Answers | None
    """None where the pairs or the towers of the later release are gone."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ids that JSON does not know as text."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """By title, for people."""
        moved = [asdict(one) for one in self.answers.moved] if self.answers else []
        return {
            "metrics": [_row(change) for change in self.metrics],
            "config": [_row(change) for change in self.config],
            "items whose answers changed most": moved,
        }

    def lines(self) -> list[str]:
        """What is no table."""
        said = [
            f"items: {self.num_items[0]:,} to {self.num_items[1]:,}; {self.num_in:,} in{_some(self.items_in)},"
            f" {self.num_out:,} out{_some(self.items_out)}"
        ]
        if self.answers is None:
            return [*said, "agreement: not known, since pairs or towers of the later release are gone"]
        many = f"{self.answers.num_queries:,} held-out users at {self.answers.k} items"
        return [*said, f"agreement: {self.answers.agreement:.4f} of the earlier answers to {many}"]


@dataclass(frozen=True)
class Asked:
    """Whose held-out users ask."""

    pairs: Version
    towers: Version
    config: Config


def between(config: Config, workspace: Workspace, before: Version, after: Version) -> Diff:
    """What changed from ``before`` to ``after``; ``config`` says how many users are asked, and drawn by which seed."""
    ours, theirs = _items(after), _items(before)
    comparable = ours.type == theirs.type
    came = ours.filter(pc.invert(pc.is_in(ours, theirs))) if comparable else ours
    went = theirs.filter(pc.invert(pc.is_in(theirs, ours))) if comparable else theirs
    return Diff(
        before.name,
        after.name,
        (len(theirs), len(ours)),
        len(came),
        len(went),
        tuple(came.slice(0, _SHOWN).to_pylist()),
        tuple(went.slice(0, _SHOWN).to_pylist()),
        tuple(_changes(_config(workspace, before), _config(workspace, after))),
        tuple(_changes(_metrics(workspace, before), _metrics(workspace, after), both=True)),
        _answers(config, workspace, before, after),
    )


def _items(version: Version) -> Any:
    """Ids of the items in the index, by the row of the catalogue; one shard is in memory at a time."""
    catalogue = tables.read(version.store, release.CATALOGUE_FILE, ["item"])["item"].combine_chunks()
    num_shards = release.search_of(version.store).num_shards
    rows = [build.ids(version.store.read_with(release.shard_file(number), build.read)) for number in range(num_shards)]
    return catalogue.take(pa.array(np.sort(np.concatenate(rows))))


def _config(workspace: Workspace, version: Version) -> dict[str, Any]:
    """The config of a release and of the versions that it came from, as far as they are there, by dotted name."""
    lineage = release.lineage_of(version.store)
    origin = dict(zip(_PARTS, (lineage.pairs, lineage.towers, lineage.evaluation), strict=True))
    found: dict[str, Any] = {}
    for stage, name in origin.items():
        made = _opened(workspace, stage, name)
        found |= _flat(made.manifest.config) if made else {}
    return found | _flat(version.manifest.config)  # which says what is displayed, whatever the pairs were made for


def _metrics(workspace: Workspace, version: Version) -> dict[str, Any]:
    """What the gate found, and the towers' metrics where the evaluation is still there."""
    evidence = json.loads(version.store.read(release.GATE_FILE))["evidence"]
    numbers = {name: value for name, value in evidence.items() if isinstance(value, int | float)}
    evaluation = _opened(workspace, "evaluations", release.lineage_of(version.store).evaluation)
    return numbers | ({f"towers.{k}": v for k, v in evaluation.manifest.facts["towers"].items()} if evaluation else {})


def _answers(config: Config, workspace: Workspace, before: Version, after: Version) -> Answers | None:
    lineage = release.lineage_of(after.store)
    pairs, towers = _opened(workspace, "pairs", lineage.pairs), _opened(workspace, "towers", lineage.towers)
    if pairs is None or towers is None:
        return None
    asking, k = Asked(pairs, towers, config), config.gate.index_recall_at
    new, _ = previous.answers(asking, after, k)
    old, given = previous.answers(asking, before, k)
    if not given:
        return Answers(0.0, len(new), k, ())
    return Answers(nearest.hits(new, old) / given, len(new), k, _moved(Pairs.of(pairs), old, new))


def _moved(pairs: Pairs, old: npt.NDArray[np.int64], new: npt.NDArray[np.int64]) -> tuple[Moved, ...]:
    """Ties go to the earlier row."""
    before, after = (np.bincount(ids[ids >= 0], minlength=pairs.num_items) for ids in (old, new))
    change = np.abs(after - before)
    rows = np.argsort(-change, kind="stable")[:_SHOWN]
    rows = rows[change[rows] > 0]
    shown = pairs.catalogue().take(pa.array(rows))
    titles = shown["title"].to_pylist() if "title" in shown.column_names else [None] * len(rows)
    return tuple(
        Moved(item, title or "", int(before[row]), int(after[row]))
        for item, title, row in zip(shown["item"].to_pylist(), titles, rows, strict=True)
    )


def _opened(workspace: Workspace, stage: str, name: str) -> Version | None:
    try:
        return workspace.open(stage, name)
    except RayclError as error:
        log.info("not compared: %s", error)
        return None


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], *, both: bool = False) -> list[Change]:
    """Values that differ, in the order of the later one; with ``both`` also those that do not."""
    names = [*after, *(name for name in before if name not in after)]
    found = [Change(name, before.get(name), after.get(name)) for name in names]
    return [change for change in found if both or change.before != change.after]


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {path: tree}
    found: dict[str, Any] = {}
    for key, part in tree.items():
        found |= _flat(part, f"{path}.{key}" if path else key)
    return found


def _row(change: Change) -> dict[str, Any]:
    row = {"name": change.name, "before": _said(change.before), "after": _said(change.after)}
    numbers = [value for value in (change.before, change.after) if isinstance(value, int | float)]
    return row | {"change": f"{numbers[1] - numbers[0]:+.6g}" if len(numbers) == 2 else ""}


def _said(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def _some(items: tuple[Any, ...]) -> str:
    return f" ({', '.join(map(str, items[:5]))}{', ...' if len(items) > 5 else ''})" if items else ""
