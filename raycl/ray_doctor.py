"""What every node of the connected cluster finds of itself."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.state import state
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raycl import doctor_facts, ray_runtime
from raycl.config import Config
from raycl.doctor import Cluster
from raycl.doctor_facts import Node, Place
from raycl.errors import RayclError

_WITHIN_S = 120.0


def look(config: Config) -> Cluster:
    """Ask every node that is alive; RayclError where one starts nothing within two minutes."""
    ray_runtime.connect(config.ray)
    places: dict[str, Place] = {"workspace": (config.workspace, "create")}
    spill = _spill_folder()
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    asked = [_ask(node, places, spill) for node in alive]
    try:
        nodes = ray.get(asked, timeout=_WITHIN_S)
    except GetTimeoutError as error:
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
        silent = [node["NodeManagerAddress"] for node, one in zip(alive, asked, strict=True) if one not in ready]
        raise RayclError(
            f"{', '.join(silent)}: no process starts there within {_WITHIN_S:.0f} s; see the node's logs, in"
            " session_latest/logs of its --temp-dir, and whether it has memory"
        ) from error
    return Cluster(nodes=nodes, cpus=ray_runtime.num_cpus())


def _ask(node: dict[str, Any], places: dict[str, Place], spill: str | None) -> Any:
    resources = node["Resources"]
    role = "head" if "node:__internal_head__" in resources else "worker"
    session = Path(node["ObjectStoreSocketName"]).parents[1]
    facts = {
        "name": f"{node['NodeManagerAddress']} ({role} {node['NodeID'][:6]})",
        "places": places,
        "ray_gpus": float(resources.get("GPU", 0.0)),
        "object_store_bytes": int(resources.get("object_store_memory", 0)),
        "memory_bytes": int(resources.get("memory", 0) + resources.get("object_store_memory", 0)),
        "spill_folder": spill or str(session),
    }
    remote = ray.remote(_describe).options(
        name="doctor",
        num_cpus=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
    )
    return remote.remote(facts, time.time())


def _describe(facts: dict[str, Any], asked_s: float) -> Node:
    return doctor_facts.describe(**facts, token=is_token_auth_enabled(), asked_s=asked_s)


def _spill_folder() -> str | None:
    """Where the head said that objects are spilled; None where every node spills into its session."""
    told: dict[str, Any] = state.get_system_config()  # type: ignore[no-untyped-call]
    said = told.get("object_spilling_config")
    if not said:
        return None
    folder = json.loads(said).get("params", {}).get("directory_path")
    return str(folder[0] if isinstance(folder, list) else folder) if folder else None
