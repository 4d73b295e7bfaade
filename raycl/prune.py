"""Removing versions that no release and no newest run refers to any more."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from raycl import nightly
from raycl.config import Config
from raycl.errors import InputError
from raycl.storage import pruning
from raycl.storage.pruning import STAGES, Held
from raycl.storage.versions import Workspace

_ROOTS = ("releases", "searches")


@dataclass(frozen=True)
class Pruned:
    """What stays, by name with the reason, and what goes, oldest first of each stage."""

    held: tuple[Held, ...]
    reasons: dict[str, str]

    @property
    def kept(self) -> list[Held]:
        """Versions of the stages that are pruned, for which something speaks."""
        return [one for one in self.held if one.stage in STAGES and one.name in self.reasons]

    @property
    def removed(self) -> list[Held]:
        """Versions for which nothing speaks."""
        return [one for one in self.held if one.stage in STAGES and one.name not in self.reasons]


def run(
    config: Config,
    workspace: Workspace,
    keep: int,
    grace_s: float,
    pins: Collection[str] = (),
    *,
    dry_run: bool = False,
) -> Pruned:
    """Remove what ``pruning.reasons`` does not keep; with ``dry_run`` only say what.

    Towers that the config names are kept as if they were pinned. InputError, and nothing is removed, while a run is at
    work in the workspace, for a pin that is no finished version, and for a release whose manifest cannot be read.
    """
    _require_idle(workspace)
    held = [Held.of(version) for stage in (*STAGES, *_ROOTS) for version in workspace.readable(stage)][::-1]
    names = {one.name for one in held}
    for stage in _ROOTS:
        for name in workspace.finished(stage):
            if name not in names:
                raise InputError(
                    f"{workspace.store.uri}/{stage}/{name} cannot be read, so nobody knows what it was made from:"
                    f" remove it, or prune with the raycl that made it"
                )
    if unknown := sorted(set(pins) - names):
        raise InputError(f"--pin {unknown[0]}: no such finished version in workspace={workspace.store.uri}")
    named = set(config.ensemble.towers) if config.ensemble else set()
    named |= {config.train.start_from} if config.train.start_from else set()
    found = Pruned(tuple(held), pruning.reasons(held, keep, grace_s, time.time(), {*pins, *named}))
    if dry_run:
        return found
    workspace.store.require_writable()
    for stage in STAGES:
        for name in workspace.half_removed(stage):
            workspace.remove(stage, name)
    for one in found.removed:
        workspace.remove(one.stage, one.name)
    return found


def _require_idle(workspace: Workspace) -> None:
    nightly.require_free(workspace.store)
    for stage in (*STAGES, *_ROOTS):
        workspace.require_idle(stage)
