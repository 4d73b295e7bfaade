"""Where vectors of words are made: actors of Ray Data that load a model once each."""

from __future__ import annotations

from raycl import ray_runtime
from raycl.config import Config, ItemTable
from raycl.data import sources
from raycl.data.sources import Source
from raycl.storage.versions import Version, Workspace, fingerprint
from raycl.text import encoders, tasks


def found(config: Config, workspace: Workspace) -> Version | None:
    """The finished table of this config, as its sources are now; None where there is none, or none is asked for."""
    if config.items is None or not config.items.encode:
        return None
    return workspace.find(tasks.STAGE, _digest(config.items, sources.open_words(config.items)))


def run(config: Config, workspace: Workspace, *, force: bool = False) -> Version | None:
    """The item table with the columns of ``items.encode``, made where it is not there; None where none is asked for.

    A killed run goes on at the part that it was at. Raises InputError and ConfigError before Ray starts where the table
    or a model cannot be used.
    """
    items = config.items
    if items is None or not items.encode:
        return None
    source = sources.open_words(items)
    digest = _digest(items, source)
    if not force and (done := workspace.find(tasks.STAGE, digest)):
        return done
    workspace.store.require_writable()
    draft = workspace.draft(tasks.STAGE, digest, fresh=force)
    work = tasks.of(items, source, draft.store.uri)
    ray_runtime.connect(config.ray)
    use_gpu = ray_runtime.num_gpus() > 0

    def ready() -> ray_runtime.Task:
        import torch  # two seconds that a run without words to encode need not wait

        torch.set_num_threads(1)
        loaded = [
            encoders.load(chosen, f"items.encode.{place}", "cuda" if use_gpu else "cpu")
            for place, chosen in enumerate(items.encode)
        ]
        return lambda number: tasks.encode_fragment(work, loaded, number)

    records = ray_runtime.map_actors("encode", ready, len(work.fragments), num_gpus=1.0 if use_gpu else 0.0)
    version = draft.commit(
        inputs={"items": source.root_uri},
        config={"items": items.model_dump(mode="json")},
        counts={"items": sum(record["rows"] for record in records)},
        facts={
            "missing": {
                chosen.column: sum(record["missing"][chosen.column] for record in records) for chosen in items.encode
            },
            "models": dict(zip([chosen.column for chosen in items.encode], _models(items), strict=True)),
        },
    )
    return version


def _digest(items: ItemTable, source: Source) -> str:
    chosen = [one.model_dump(mode="json") for one in items.encode]
    return fingerprint(tasks.STAGE, source.identity(), list(source.types), chosen, _models(items))


def _models(items: ItemTable) -> list[str]:
    return [encoders.fingerprint(chosen, f"items.encode.{place}") for place, chosen in enumerate(items.encode)]
