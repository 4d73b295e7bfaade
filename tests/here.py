"""All stages in the process of a test, their tasks one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ray

from raycl import ray_runtime
from tests.data import whole
from tests.data.builders import in_this_process


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every stage to come without Ray: for tests of what its tasks do and not of where they run."""
    whole.without_ray(monkeypatch)

    def tasks(name: str, task: ray_runtime.Task, num_tasks: int, *more: Any, num_gpus: float = 0.0) -> Any:
        return in_this_process(name, task, num_tasks, *more)

    def actors(name: str, ready: Callable[[], ray_runtime.Task], num_tasks: int, *, num_gpus: float = 0.0) -> Any:
        return in_this_process(name, ready(), num_tasks)

    def call(name: str, task: Callable[[], dict[str, Any]], *, num_gpus: int = 0) -> dict[str, Any]:
        return task()

    for name, there in {"map_tasks": tasks, "map_actors": actors, "call": call}.items():
        monkeypatch.setattr(ray_runtime, name, there)
    monkeypatch.setattr(ray_runtime, "num_gpus", lambda: 0)
    monkeypatch.setattr(ray_runtime, "num_cpus", lambda: 1.0)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", lambda value: value)
