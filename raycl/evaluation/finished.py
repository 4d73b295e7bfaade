"""Finished evaluations by the folder or the config that a person names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raycl import config_file, journey, lineage
from raycl.errors import ConfigError, InputError
from raycl.evaluation.comparison import Evaluation
from raycl.storage.store import Store, absolute
from raycl.storage.versions import Workspace

STAGE = "evaluations"


def load(place: str, overrides: Sequence[str] = ()) -> Evaluation:
    """The evaluation in the folder ``place``, or the one of the config file ``place`` with these overrides.

    Raises InputError where there is none, and ConfigError for overrides of a folder.
    """
    if place.endswith((".yaml", ".yml")):
        config = config_file.load(Path(place), overrides)
        return Evaluation(lineage.evaluation(config, journey.workspace(config)))
    if overrides:
        raise ConfigError(f"{place} is a finished evaluation, and --set changes configs alone: name a config file")
    root, _, name = absolute(place.rstrip("/")).rpartition("/")
    workspace, _, stage = root.rpartition("/")
    if stage != STAGE:
        raise InputError(
            f"{place} is no evaluation: name a folder such as workspace/{STAGE}/<version>, or a config file"
        )
    return Evaluation(Workspace(Store(workspace)).open(STAGE, name))
