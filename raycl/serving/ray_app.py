"""The retrieval service on Ray Serve: replicas that hold the whole release, behind the routes of ``http``."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from raycl import config_file
from raycl.config import ServingConfig
from raycl.errors import ConfigError
from raycl.index import release
from raycl.serving import collector, http, ray_proxy, ray_scaling, ray_shards, remote
from raycl.serving.current import Current
from raycl.serving.listener import Listener
from raycl.serving.ray_meter import RayMeter
from raycl.serving.retriever import Retriever
from raycl.serving.service import Service
from raycl.serving.tokens import Tokens
from raycl.storage.store import Store

NAME = "raycl"
_KEEP_ALIVE_S = 90.0
"""Longer than load balancers keep a connection that is idle, so that it is never they who are surprised."""


@serve.deployment(name="Retrieval", health_check_period_s=10)
@serve.ingress()
class Retrieval:
    """Answers whole batches from one release; a newer one is loaded in the background and taken between batches."""

    _listener: Listener | None = None

    async def __init__(  # type: ignore[misc]  # Serve awaits it, on the loop that the calls to shards need
        self, workspace: str, serving: dict[str, Any], *shards: DeploymentHandle[Any]
    ) -> None:
        """``serving``: the ``serving`` part of the config, as plain values; ``shards``: those that are elsewhere."""
        self._meter = meter = RayMeter()  # first, since ``__del__`` ends it after a failure too
        collector.spare_modules()
        config = ServingConfig.model_validate(serving)
        await asyncio.to_thread(ray_proxy.require_apart, config)
        self._poll_s = config.poll_s
        self._tokens = Tokens.of(config.guard, os.environ)
        store = Store(workspace)
        meter.start()
        calls = ray_shards.Calls(shards, config) if shards else None

        quality: dict[str, dict[str, float]] = {}

        def load(name: str, *, quietly: bool) -> Retriever:
            place = store.under(f"releases/{name}")
            if calls is None:
                retriever = Retriever.of(release.load(place, quietly=quietly), config)
            else:
                head = release.load_head(place, quietly=quietly)
                index = remote.index_of(calls.of(name), head.catalogue.num_rows, head.index.depths)
                retriever = Retriever.of(head, config, index)
            retriever.warm()
            quality[name] = release.quality_of(place)
            return retriever

        self._service = Service(
            Current(store, load, meter), config, meter=meter, quality=lambda name: quality.get(name, {})
        )
        await asyncio.to_thread(self._service.current.poll)
        self._polling: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> Any:
        """What answers HTTP; called by Serve on the replica's own event loop, once."""
        self._keep_polling()
        app, config = http.application(self._service, self._tokens), self._service.config
        if config.listen == "replicas":
            self._listener = Listener(app, config.host, config.port, _KEEP_ALIVE_S)
            self._listener.start()
        return app

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Serve: what this replica has under way that Serve does not see."""
        return {ray_scaling.IN_FLIGHT: float(self._listener.in_flight) if self._listener else 0.0}

    async def __del__(self) -> None:
        """Called by Serve when the replica is to end: what is under way is answered."""
        if self._listener is not None:
            await self._listener.stop(self._service.config.guard.deadline_ms / 1000)
        self._meter.close()

    def _keep_polling(self) -> None:
        """Start the loop that looks for newer releases; it lives on the replica's own event loop."""
        if self._polling is None or self._polling.done():
            self._polling = asyncio.get_running_loop().create_task(self._poll_forever())

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.to_thread(self._service.current.poll)
            # Replicas that started together should not read the storage together.
            await asyncio.sleep(self._poll_s * random.uniform(0.8, 1.2))

    async def check_health(self) -> None:
        """Called by Serve; a bad release is no ill health, since the one before goes on answering."""
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        self._keep_polling()


def build(args: dict[str, Any]) -> serve.Application:
    """The application, from ``workspace`` and the ``serving`` part of the config; what a Serve config file imports.

    ``${NAME}`` in the workspace is a variable of the cluster's nodes. Raises ConfigError for an argument it does not
    know, and for a part of the config that is not good.
    """
    unknown = set(args) - {"workspace", "serving"}
    if unknown or "workspace" not in args:
        raise ConfigError(f"args={sorted(args)}: give 'workspace' and, if wanted, 'serving', nothing else")
    config = config_file.check_part(ServingConfig, "serving", args.get("serving", {}))
    workspace = config_file.expand(str(args["workspace"]), os.environ)
    shards = ray_shards.bound(workspace, config) if config.placement == "sharded" else []
    bound = Retrieval.options(  # type: ignore[attr-defined]
        ray_actor_options={"num_cpus": config.num_cpus},
        max_ongoing_requests=4 * config.target_ongoing_requests,
        max_queued_requests=config.guard.max_queued,
        backpressure_config={"status_code": 503, "retry_after_s": 1},
        autoscaling_config=(
            ray_scaling.own_settings(config)
            if config.listen == "replicas"
            else ray_scaling.settings(config, config.min_replicas, config.max_replicas)
        ),
    ).bind(workspace, config.model_dump(mode="json"), *shards)
    application: serve.Application = bound
    return application
