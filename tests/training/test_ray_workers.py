"""How a group of training workers ends."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from raycl import ray_runtime
from raycl.config import TrainConfig
from raycl.errors import InputError, StoreUnavailable
from raycl.storage.store import Store
from raycl.training import ray_workers


class Heard:
    """Stands for the queue to the driver, and for a group of workers that are asked to save."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def put(self, event: Any) -> None:
        self.said.append(event)

    def execute_async(self, function: Any, *_: Any, **__: Any) -> list[Any]:
        raise AssertionError(f"the workers are waited for: {function.__name__}")


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "_refused", threading.Event())


def ended_of(error: Exception) -> Heard:
    heard, group = Heard(), Heard()
    config = ray_workers._Torch(backend="gloo")
    try:
        ray_workers._Crashes(heard).after_exception(None, {1: error})  # type: ignore[arg-type]
    except InputError:
        heard.put("refused")
    config.backend_cls().on_shutdown(group, config)
    return heard


def test_workers_that_wait_for_one_that_refused_are_not_waited_for() -> None:
    assert ended_of(InputError("a file was altered")).said == ["refused"]


@pytest.mark.parametrize("error", [ZeroDivisionError("a crash"), StoreUnavailable("for a while")])
def test_after_anything_that_another_try_may_mend_they_save_first(error: Exception) -> None:
    with pytest.raises(AssertionError, match="waited for: _end_training"):
        ended_of(error)


def test_nobody_asks_the_dashboard_that_an_embedded_ray_does_not_have(ray_local: None, tmp_path: Path) -> None:
    queue: Any = Heard()
    made: Any = ray_workers._trainer(lambda *_: None, TrainConfig(), Store(str(tmp_path)), queue, queue, use_gpu=False)
    names = [type(callback).__name__ for callback in made._create_default_callbacks()]
    assert "BackendSetupCallback" in names
    assert "PlacementGroupCleanerCallback" not in names


@pytest.mark.parametrize(("cpus", "each", "told"), [(4.0, 2.0, False), (3.0, 1.0, True), (1.0, 0.5, True)])
def test_workers_that_share_cpus_are_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cpus: float, each: float, told: bool
) -> None:
    monkeypatch.setattr(ray_runtime, "num_cpus", lambda: cpus)
    assert ray_workers._cpus(TrainConfig.model_validate({"num_workers": 2, "threads_per_worker": 2})) == each
    assert (f"want 4 CPUs and the cluster has {cpus:g}:" in caplog.text) is told
