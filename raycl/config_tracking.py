"""Where the curves of a training run go besides TensorBoard's files, which every run has."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from raycl.config_values import Name, Section


def _to_server(uri: str) -> str:
    """An address without secrets; what is wrong with it is told without it, since it may hold some."""
    try:
        parts = urlsplit(uri)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError("write the address of an MLflow tracking server, such as http://mlflow.internal:5000")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "the address may hold no user, password or query, since configs are kept: set MLFLOW_TRACKING_USERNAME and"
            " MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment"
        )
    return uri.rstrip("/")


class TrackingConfig(Section):
    """Who hears of the training runs; nothing here changes what comes out of them."""

    mlflow_uri: Annotated[str, AfterValidator(_to_server)] | None = Field(default=None, repr=False)
    """Address of an MLflow tracking server, ``http://`` or ``https://``. Who may write there is told by the
    environment of the training processes: ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``, or
    ``MLFLOW_TRACKING_TOKEN``."""
    experiment: Name = "raycl"
    """The experiment there, which is made where it is not there yet."""
