"""Where vectors of words are made: actors of Ray Data that load a model once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from raycl import config_encode, ray_runtime
from raycl.config import Config, ItemTable
from raycl.data import sources
from raycl.data.sources import Source
from raycl.storage.versions import Version, Workspace, fingerprint
from raycl.text import encoders, ray_tune, tasks, tuned


def found(config: Config, workspace: Workspace) -> Version | None:
    """The finished table of this config, as its sources are now; None where there is none, or none is asked for."""
    items = config.items
    if items is None or not items.encode:
        return None
    tuned_ones: dict[int, Version] | None = {}
    if config_encode.before(config) is not None:
        pairs = ray_tune.pairs(config, workspace)
        tuned_ones = ray_tune.found(config, workspace, pairs) if pairs is not None else None
    if tuned_ones is None:
        return None
    return workspace.find(tasks.STAGE, _digest(sources.open_words(items), items, _models(items, tuned_ones)))


def run(config: Config, workspace: Workspace, pairs: Version | None = None) -> Version | None:
    """The item table with the columns of ``items.encode``, made where it is not there; None where none is asked for.

    ``pairs`` are those that encoders are tuned on, of a config that asks for it. A killed run goes on at the part that
    it was at. Raises InputError and ConfigError before Ray starts where the table or a model cannot be used.
    """
    items = config.items
    if items is None or not items.encode:
        return None
    source = sources.open_words(items)
    tuned_ones = ray_tune.run(config, workspace, pairs) if pairs is not None else {}
    models = _models(items, tuned_ones)
    digest = _digest(source, items, models)
    if done := workspace.find(tasks.STAGE, digest):
        return done
    workspace.store.require_writable()
    draft = workspace.draft(tasks.STAGE, digest)
    work = tasks.of(items, source, draft.store.uri)
    ray_runtime.connect(config.ray)
    use_gpu = ray_runtime.num_gpus() > 0

    def ready() -> ray_runtime.Task:
        torch.set_num_threads(1)
        device = "cuda" if use_gpu else "cpu"
        loaded = [
            tuned.encoder(tuned_ones.get(place), chosen, f"items.encode.{place}", device)
            for place, chosen in enumerate(items.encode)
        ]
        return lambda number: tasks.encode_fragment(work, loaded, number)

    records = ray_runtime.map_actors("encode", ready, len(work.fragments), num_gpus=1.0 if use_gpu else 0.0)
    columns = [chosen.column for chosen in items.encode]
    return draft.commit(
        inputs={"items": source.root_uri},
        config={"items": items.model_dump(mode="json")},
        counts={"items": sum(record["rows"] for record in records)},
        facts={
            "missing": {column: sum(record["missing"][column] for record in records) for column in columns},
            "models": dict(zip(columns, models, strict=True)),
            "tuned": {columns[place]: version.name for place, version in tuned_ones.items()},
        },
    )


def _models(items: ItemTable, tuned_ones: Mapping[int, Version]) -> list[str]:
    """Fingerprint of each encoder."""
    return [
        tuned_ones[place].manifest.fingerprint
        if place in tuned_ones
        else encoders.fingerprint(chosen, f"items.encode.{place}")
        for place, chosen in enumerate(items.encode)
    ]


def _digest(source: Source, items: ItemTable, models: Sequence[str]) -> str:
    chosen = [one.model_dump(mode="json") for one in items.encode]
    return fingerprint(tasks.STAGE, source.identity(), list(source.types), chosen, models)
