"""Mined negatives on Ray: the vectors of the towers before are shared, and each task mines a run of items."""

from __future__ import annotations

import logging
from typing import Any

import ray

from raycl import ray_runtime
from raycl.config_loss import Mined
from raycl.data.handoff import Pairs
from raycl.storage.versions import Draft, Workspace
from raycl.training import mining

log = logging.getLogger(__name__)


def run(how: Mined, workspace: Workspace, pairs: Pairs, draft: Draft, seed: int) -> dict[str, Any]:
    """Leave mined negatives in the draft, once; needs a connected Ray.

    The record names the towers that they are ``from``, None where there are none yet and training goes without, and for
    how many ``items`` there are some.
    """
    task = "mined"
    if (record := draft.task_done(task)) is not None:
        return record
    before = mining.previous(workspace, pairs)
    if before is None:
        log.warning("loss.negatives.mined: there are no towers yet to mine from, so these are trained without")
        record = {"from": None, "items": 0}
    else:
        among = mining.candidates(before.vectors, pairs.retired(), seed)
        shared = ray.put((before.vectors, among))

        def mine(block: int) -> dict[str, Any]:
            vectors, others = ray.get(shared)
            return mining.mine_block(draft, block, vectors, others, how, seed)

        found = ray_runtime.map_tasks("mine", mine, mining.num_blocks(len(before.vectors)))
        record = {"from": before.name, "items": sum(one["items"] for one in found)}
        log.info("mined negatives of %d items from towers %s", record["items"], before.name)
    draft.finish_task(task, record)
    return record
