"""Starting the service where its replicas listen themselves, without a Ray: what is asked of Serve is kept."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from ray import serve

from raycl import ray_runtime
from raycl.config import Config
from raycl.errors import RayclError
from raycl.serving import listener, ray_proxy, ray_serve
from tests import tiny as builders


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Serve was asked to do; nobody listens afterwards."""
    asked: list[str] = []

    def keep(what: str) -> Any:
        return lambda *arguments, **options: asked.append(what)

    for what in ("start", "run", "delete"):
        monkeypatch.setattr(serve, what, keep(what))
    monkeypatch.setattr(ray_runtime, "connect", keep("connect"))
    monkeypatch.setattr(ray_runtime, "num_cpus", lambda: 8.0)
    monkeypatch.setattr(ray_proxy, "require_apart", keep("require_apart"))
    monkeypatch.setattr(listener, "wait_for", lambda host, port, within_s: False)
    return asked


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return builders.changed(builders.tiny_config(tmp_path), "serving", listen="replicas")


def test_replicas_of_an_embedded_ray_that_do_not_listen_are_ended_and_told(done: list[str], config: Config) -> None:
    with pytest.raises(RayclError, match=r"serving\.port=\d+ on 127\.0\.0\.1: replicas run and nobody listens there"):
        ray_serve.start(config)
    assert done == ["connect", "start", "require_apart", "run", "delete"]


def test_replicas_of_a_cluster_may_listen_on_other_nodes(
    done: list[str], config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_runtime, "joined_cluster", lambda: True)
    with caplog.at_level(logging.WARNING):
        url = ray_serve.start(config)
    assert done == ["connect", "start", "require_apart", "run"]
    assert (
        f"replicas listen at port {url.rpartition(':')[2]} of their own nodes, of which this one is none" in caplog.text
    )
