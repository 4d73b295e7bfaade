"""Vectors of the words of items that join a release: made by the very encoders that made those of its own items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from raycl.config import ItemTable
from raycl.config_encode import Encoding
from raycl.errors import InputError, RayclError, StoreUnavailable
from raycl.index import release
from raycl.index.delta_items import Handed
from raycl.storage.versions import Version, Workspace
from raycl.text import tuned
from raycl.text.encoders import Encode
from raycl.text.tasks import STAGE, with_vectors


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
    name = pairs.manifest.inputs.get(STAGE)
    if name is None:
        return Made()
    found = workspace.open(STAGE, name).manifest
    items = ItemTable.model_validate(found.config["items"])
    return Made(items.encode, found.facts.get("models", {}), found.facts.get("tuned", {}))


def complete(workspace: Workspace, built: Version, handed: Handed) -> Handed:
    """What is handed in, with the vectors of its words.

    InputError where the config and the release differ in what is tuned, and what ``tuned.encoder`` raises.
    """
    if not handed.encode:
        return handed
    tunes = any(chosen.fine_tune is not None for chosen in handed.encode)
    made = of(workspace, built) if tunes else known(workspace, built)
    for place, chosen in enumerate(handed.encode):
        if (chosen.fine_tune is not None) != (chosen.column in made.tuned):
            was = "with" if chosen.column in made.tuned else "without"
            raise InputError(
                f"items.encode.{place}.fine_tune: release {built.name} was made {was} it: hand in with the config that"
                f" the release was made with"
            )
    return replace(handed, items=_encoded(workspace, made, handed.items, handed.encode), encode=())


def known(workspace: Workspace, built: Version) -> Made:
    """``of``; nothing where the pairs that a release was built from are gone or cannot be read.

    StoreUnavailable where the storage does not answer.
    """
    try:
        return of(workspace, built)
    except StoreUnavailable:
        raise
    except RayclError:
        return Made()


def _encoded(workspace: Workspace, made: Made, items: pa.Table, encode: Sequence[Encoding]) -> pa.Table:
    loaded = [encoder(workspace, made, chosen, f"items.encode.{place}") for place, chosen in enumerate(encode)]
    return with_vectors(items, encode, loaded)


def encoder(workspace: Workspace, made: Made, chosen: Encoding, field: str) -> Encode:
    """The encoder of this column, tuned where ``made`` says so; raises what ``tuned.encoder`` does."""
    version = workspace.open(tuned.STAGE, made.tuned[chosen.column]) if chosen.column in made.tuned else None
    return tuned.encoder(version, chosen, field)
