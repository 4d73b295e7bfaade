"""Who hears of a training run, by the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raycl.config_tracking import TrackingConfig
from raycl.storage.store import Store
from raycl.tracking.background import Background
from raycl.tracking.events import Sink
from raycl.tracking.mlflow import Mlflow
from raycl.tracking.tensorboard import TensorBoard


def of(tracking: TrackingConfig, store: Store, about: Mapping[str, Any], tags: Mapping[str, str]) -> list[Sink]:
    """Sinks of the run whose draft is ``store``, each in a thread of its own.

    ``about`` is the config that the run is made by, and ``tags`` what it is made from.
    """
    found: list[Sink] = [Background("TensorBoard", lambda: TensorBoard(store))]
    if (uri := tracking.mlflow_uri) is not None:
        name = store.uri.rstrip("/").rpartition("/")[2]
        found.append(Background("MLflow", lambda: Mlflow(uri, tracking.experiment, name, about, store, tags)))
    return found
