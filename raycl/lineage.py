"""Which part of the config makes which version, and so which finished version a later stage builds on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from raycl import config_pretrain, schema
from raycl.config import Config
from raycl.errors import InputError
from raycl.storage.versions import Version, Workspace, fingerprint

PLACEMENT: dict[str, dict[str, frozenset[str]]] = {
    "pairs": {"pairs": frozenset({"rows_per_fragment", "incremental"})},
    "towers": {
        "train": frozenset(
            {"num_workers", "use_gpu", "threads_per_worker", "max_failures", "checkpoint_steps", "rows_per_pass"}
        )
    },
    "evaluations": {"evaluation": frozenset({"users_per_block", "use_gpu"})},
    "releases": {"index": frozenset({"items_per_block", "use_gpu"})},
}
"""Of each stage, by section: settings that change where and in what portions it runs, and of what comes out no more
than the rounding. Four of them shape the output after all, in some configs:

- ``pairs.rows_per_fragment`` with a split by time, whose cuts come from a sketch of each fragment;
- ``pairs.incremental`` without ``pairs.num_buckets``, where a log that has grown keeps the buckets that it had;
- ``train.num_workers`` and ``train.rows_per_pass`` with ``model.dropout`` or ``model.feature_dropout``, which every
  pass of each worker draws anew; and where two validations are so near each other that rounding decides which is the
  best, or a gain.

``pairs.num_buckets`` is none of them: it makes the files that training shuffles by.
"""

_CUTS = {
    "pairs": {"pairs": {"rows_per_fragment", "incremental"}},
    "releases": {"index": {"items_per_block", "use_gpu"}},
}

_PARTS = {
    "pairs": {"seed", "logs", "event_weights", "items", "users", "pairs"},
    "towers": {"seed", "context", "model", "loss", "train", "ensemble"},
    "evaluations": {"evaluation"},
    "releases": {"seed", "index", "gate"},
}


_ADDED: Mapping[str, list[tuple[tuple[str, ...], bool | float | str]]] = {
    "pairs": [(("pairs", "split", "train_on_val"), False)],
    "towers": [
        (("model", "history_dropout"), 0.0),
        (("loss", "user_balance"), 0.0),
        (("loss", "log_q_strength"), 1.0),
        (("train", "item_start"), "random"),
    ],
}
"""Of each stage, settings that versions exist from before, with the value that those have."""


def part(config: Config, stage: str) -> dict[str, Any]:
    """The part of the config that shapes this stage's output, as plain values; the manifest keeps it."""
    found = config.model_dump(mode="json", include=_PARTS[stage])
    if config.ensemble is None:
        found.pop("ensemble", None)  # versions of configs before there were ensembles are found as they were
    for (*sections, setting), before in _ADDED.get(stage, ()):  # and so are those of before these could be set
        inner = found
        for name in sections:
            inner = inner[name]
        if inner.get(setting) == before:
            inner.pop(setting)
    if stage == "releases" and config.items is not None:
        found["items"] = {"display": list(config.items.display)}
    return found


def digest(config: Config, stage: str, *inputs: Any) -> str:
    """Fingerprint of a version: its part of the config without placement, and what it is made from."""
    tree = _displayed_later(part(config, stage)) if stage == "pairs" else part(config, stage)
    if stage == "releases" and config.items is not None and not config.items.display:
        tree.pop("items")
    return fingerprint(stage, _without(tree, _placement(config, stage)), inputs)


def cut(config: Config, stage: str) -> str:
    """How the stage's work is cut into tasks that a killed run leaves, as a draft keeps it; empty where that is fixed.

    What one run left of a task means something else to a run of another cut, though both end in the same version.
    """
    return fingerprint(config.model_dump(mode="json", include=_CUTS[stage])) if stage in _CUTS else ""


def pairs(config: Config, workspace: Workspace) -> Version:
    """The newest finished pairs of this config; InputError where there are none."""
    found = newest_pairs(config, workspace)
    if found is None:
        raise InputError(
            f"workspace={workspace.store.uri} has no finished pairs of this config: run 'raycl pairs' first"
        )
    return found


def newest_pairs(config: Config, workspace: Workspace, windows: Collection[str] = ()) -> Version | None:
    """The newest finished pairs of this config, whatever it says of the ``windows`` of its logs; None without any.

    Versions of a raycl that kept pairs in other columns are passed over.
    """
    placement = _placement(config, "pairs")

    def compared(tree: Mapping[str, Any]) -> dict[str, Any]:
        logs = [{key: value for key, value in log.items() if key not in windows} for log in tree["logs"]]
        return _without(_displayed_later({**tree, "logs": logs}), placement)

    wanted = compared(part(config, "pairs"))
    for version in workspace.readable("pairs"):
        columns = version.manifest.columns.get("sequences", dict.fromkeys(schema.BOUNDS))
        if set(schema.BOUNDS) <= columns.keys() and compared(version.manifest.config) == wanted:
            return version
    return None


def _displayed_later(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The pairs' part of a config that displays nothing of items: what is displayed, the release alone holds to."""
    items = tree.get("items")
    return dict(tree) if items is None else {**tree, "items": {**items, "display": []}}


def _placement(config: Config, stage: str) -> dict[str, frozenset[str]]:
    """``PLACEMENT`` of the stage, less what shapes the output in this config."""
    found = dict(PLACEMENT[stage])
    if stage == "pairs" and config.pairs.split.kind == "time":
        found["pairs"] -= {"rows_per_fragment"}
    if stage == "towers" and (config.model.dropout > 0.0 or config.model.feature_dropout > 0.0):
        found["train"] -= {"num_workers", "rows_per_pass"}
    return found


def _without(tree: Mapping[str, Any], settings: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """The sections of ``tree``, those that ``settings`` names without these settings."""
    return {
        name: {key: value for key, value in section.items() if key not in settings[name]}
        if name in settings
        else section
        for name, section in tree.items()
    }


def towers(config: Config, workspace: Workspace) -> Version:
    """The towers of this config on its newest pairs; InputError where they are not finished."""
    made_from = pairs(config, workspace)
    config = pretrained(config, workspace, made_from)
    return _found(workspace, "towers", digest(config, "towers", made_from.name), "raycl train")


def pretrained(config: Config, workspace: Workspace, pairs: Version) -> Config:
    """The config as its training begins with what it pretrained on ``pairs``; itself where it does not, or not yet."""
    first = config_pretrain.before(config)
    found = workspace.find("towers", digest(first, "towers", pairs.name)) if first is not None else None
    return config if found is None else config_pretrain.after(config, found.name)


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
