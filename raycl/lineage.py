"""Which part of the config makes which version, and so which finished version a later stage builds on."""

from __future__ import annotations

from typing import Any

from raycl.config import Config
from raycl.errors import InputError
from raycl.storage.versions import Version, Workspace, fingerprint

PLACEMENT = ("num_workers", "use_gpu", "threads_per_worker", "max_failures")
"""Training settings that change where it runs and not what comes out."""

_PARTS = {
    "pairs": {"seed", "logs", "event_weights", "items", "users", "pairs"},
    "towers": {"seed", "model", "loss", "train"},
    "evaluations": {"evaluation"},
    "releases": {"seed", "index", "gate"},
}


def part(config: Config, stage: str) -> dict[str, Any]:
    """The part of the config that shapes this stage's output, as plain values; the manifest keeps it."""
    return config.model_dump(mode="json", include=_PARTS[stage])


def digest(config: Config, stage: str, *inputs: Any) -> str:
    """Fingerprint of a version: its part of the config without placement, and what it is made from."""
    shaping = part(config, stage)
    if stage == "towers":
        shaping["train"] = {key: value for key, value in shaping["train"].items() if key not in PLACEMENT}
    return fingerprint(stage, shaping, inputs)


def pairs(config: Config, workspace: Workspace) -> Version:
    """The newest finished pairs of this config; InputError where there are none."""
    wanted = part(config, "pairs")
    for name in reversed(workspace.finished("pairs")):
        version = workspace.open("pairs", name)
        if version.manifest.config == wanted:
            return version
    raise InputError(f"workspace={workspace.store.uri} has no finished pairs of this config: run 'raycl pairs' first")


def towers(config: Config, workspace: Workspace) -> Version:
    """The towers of this config on its newest pairs; InputError where they are not finished."""
    made_from = pairs(config, workspace)
    return _found(workspace, "towers", digest(config, "towers", made_from.name), "raycl train")


def evaluation(config: Config, workspace: Workspace) -> Version:
    """The evaluation of this config's towers; InputError where it is not finished."""
    measured = towers(config, workspace)
    return _found(workspace, "evaluations", digest(config, "evaluations", measured.name), "raycl evaluate")


def release(config: Config, workspace: Workspace) -> Version:
    """The release of this config, published or not; InputError where it is not finished."""
    measured = evaluation(config, workspace)
    made_from = measured.manifest.inputs["towers"]
    return _found(workspace, "releases", digest(config, "releases", made_from, measured.name), "raycl index")


def _found(workspace: Workspace, stage: str, wanted: str, command: str) -> Version:
    version = workspace.find(stage, wanted)
    if version is None:
        raise InputError(
            f"workspace={workspace.store.uri} has no finished {stage} of this config: run '{command}' first"
        )
    return version
