"""Vectors of the words of items that join a release: made by the very encoders that made those of its own items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from raycl.config import ItemTable
from raycl.config_encode import Encoding
from raycl.errors import InputError, RayclError
from raycl.index import release
from raycl.index.delta_items import Handed
from raycl.storage.versions import Version, Workspace
from raycl.text import tuned
from raycl.text.tasks import with_vectors

_STAGE = "encodings"


@dataclass(frozen=True)
class Made:
    """How the vectors of a release's items were made, by column."""

    encode: tuple[Encoding, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of the encoders."""
    tuned: Mapping[str, str] = field(default_factory=dict)
    """Names of the versions of those that were tuned."""


def of(workspace: Workspace, built: Version) -> Made:
    """What the release ``built`` was made with, by its pairs; InputError where these are no more."""
    pairs = workspace.open("pairs", release.lineage_of(built.store).pairs)
    name = pairs.manifest.inputs.get(_STAGE)
    if name is None:
        return Made()
    found = workspace.open(_STAGE, name).manifest
    items = ItemTable.model_validate(found.config["items"])
    return Made(items.encode, found.facts.get("models", {}), found.facts.get("tuned", {}))


def complete(workspace: Workspace, built: Version, handed: Handed) -> Handed:
    """What is handed in, with the vectors of its words.

    InputError where the config and the release differ in what is tuned, and what ``tuned.encoder`` raises.
    """
    if not handed.encode:
        return handed
    made = _made(workspace, built, handed.encode)
    for place, chosen in enumerate(handed.encode):
        if (chosen.fine_tune is not None) != (chosen.column in made.tuned):
            was = "with" if chosen.column in made.tuned else "without"
            raise InputError(
                f"items.encode.{place}.fine_tune: release {built.name} was made {was} it: hand in with the config that"
                f" the release was made with"
            )
    return replace(handed, items=_encoded(workspace, made, handed.items, handed.encode), encode=())


def again(workspace: Workspace, origin: Version, target: Version) -> Callable[[pa.Table], pa.Table]:
    """From items as ``origin`` was given them to items for ``target``: with vectors of its encoders where these differ.

    Without the column of its words a vector is unknown. Raises what ``tuned.encoder`` does.
    """
    try:
        before, now = of(workspace, origin), of(workspace, target)
    except RayclError:  # pairs that are no more: nothing is known to be another
        return lambda items: items
    changed = [one for one in now.encode if now.models.get(one.column) not in (None, before.models.get(one.column))]

    def remade(items: pa.Table) -> pa.Table:
        there = items.drop_columns([one.column for one in changed if one.column in items.column_names])
        can = [one for one in changed if set(one.of) <= set(items.column_names)]
        return _encoded(workspace, now, there, can)

    return remade


def _made(workspace: Workspace, built: Version, encode: Sequence[Encoding]) -> Made:
    try:
        return of(workspace, built)
    except RayclError:
        if any(chosen.fine_tune is not None for chosen in encode):
            raise
        return Made()


def _encoded(workspace: Workspace, made: Made, items: pa.Table, encode: Sequence[Encoding]) -> pa.Table:
    loaded = [
        tuned.encoder(
            workspace.open(tuned.STAGE, made.tuned[chosen.column]) if chosen.column in made.tuned else None,
            chosen,
            f"items.encode.{place}",
        )
        for place, chosen in enumerate(encode)
    ]
    return with_vectors(items, encode, loaded)
