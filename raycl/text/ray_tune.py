"""Where encoders are tuned: one task each, of as many threads as a worker of training, before items are encoded."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from raycl import config_encode, lineage, ray_runtime, schema
from raycl.config import Config
from raycl.config_encode import Encoding
from raycl.data import sources
from raycl.storage.versions import Version, Workspace
from raycl.text import encoders, tune_tasks, tuned


def require(config: Config) -> None:
    """Raise the InputError or ConfigError of a model that cannot be tuned as asked, before Ray starts."""
    for place, chosen in _asked(config):
        encoders.require_layers(chosen, f"items.encode.{place}")


def pairs(config: Config, workspace: Workspace) -> Version | None:
    """The finished pairs that encoders of ``config`` are tuned on, as its sources are now; None without such."""
    first = config_encode.before(config)
    if first is None:
        return None
    identities = [table.identity() for table in sources.open_inputs(first).tables]
    return workspace.find("pairs", lineage.digest(first, "pairs", schema.PAIRS_FORMAT, identities))


def found(config: Config, workspace: Workspace, made_from: Version) -> dict[int, Version] | None:
    """By place in ``items.encode``: the finished tuned encoders; None where one of them is not finished."""
    finished = {}
    for place, chosen in _asked(config):
        version = workspace.find(tuned.STAGE, _digest(config, place, chosen, made_from))
        if version is None:
            return None
        finished[place] = version
    return finished


def run(config: Config, workspace: Workspace, made_from: Version) -> dict[int, Version]:
    """By place in ``items.encode``: the encoders that are tuned on the training part of these pairs.

    Those that are finished are found. A run that was killed tunes an encoder that it had not finished from the start.
    """
    return {place: _one(config, workspace, place, chosen, made_from) for place, chosen in _asked(config)}


def _one(config: Config, workspace: Workspace, place: int, chosen: Encoding, made_from: Version) -> Version:
    digest = _digest(config, place, chosen, made_from)
    if done := workspace.find(tuned.STAGE, digest):
        return done
    assert config.items is not None
    workspace.store.require_writable()
    draft = workspace.draft(tuned.STAGE, digest)
    work = tune_tasks.Work(config.items, place, made_from, _seed(config, chosen), draft.store.uri)
    ray_runtime.connect(config.ray)
    use_gpu = ray_runtime.num_gpus() > 0
    threads = config.train.threads_per_worker

    def tune() -> dict[str, object]:
        torch.set_num_threads(threads)
        return tune_tasks.tune(work, "cuda" if use_gpu else "cpu")

    record = ray_runtime.call("tune", tune, num_gpus=int(use_gpu))
    return draft.commit(
        inputs={"pairs": made_from.name},
        config={"encode": chosen.model_dump(mode="json")},
        counts={"pairs": record["pairs"], "texts": record["texts"]},
        facts={
            "base": encoders.fingerprint(chosen, work.field),
            "losses": record["losses"],
            "device": record["device"],
            "seed": work.seed,
        },
    )


def _asked(config: Config) -> Iterator[tuple[int, Encoding]]:
    for place, chosen in enumerate(config.items.encode if config.items else ()):
        if chosen.fine_tune is not None:
            yield place, chosen


def _seed(config: Config, chosen: Encoding) -> int:
    assert chosen.fine_tune is not None
    return config.seed if chosen.fine_tune.seed is None else chosen.fine_tune.seed


def _digest(config: Config, place: int, chosen: Encoding, made_from: Version) -> str:
    base = encoders.fingerprint(chosen, f"items.encode.{place}")
    return tuned.digest(chosen, base, made_from, _seed(config, chosen))
