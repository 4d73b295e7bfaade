"""The whole HTTP application without Ray, on a retriever in plain loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa

from raycl.config import ServingConfig
from raycl.serving import http
from raycl.serving.current import Current, Load
from raycl.serving.meter import METRICS
from raycl.serving.retriever import Retriever
from raycl.serving.service import Batch, Service
from raycl.serving.tokens import Tokens
from raycl.storage import pointer
from raycl.storage.store import Store
from tests.serving import builders

KINDS = ["tea", "tea", "rope", "rope", "lamp", None]


def catalogue() -> pa.Table:
    """Six items of three kinds."""
    shown = builders.catalogue().append_column("kind", pa.array(KINDS))
    stock = [row % 2 for row in range(len(KINDS))]
    return shown.append_column("stock", pa.array(stock))


class Noted:
    """A meter that keeps what it is told, and knows the metrics and their tags."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, dict[str, str]]] = []

    def add(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Keep it."""
        self._keep(name, value, tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Keep it."""
        self._keep(name, value, tags)

    def set(self, name: str, value: float) -> None:
        """Keep it."""
        self._keep(name, value, {})

    def _keep(self, name: str, value: float, tags: dict[str, str]) -> None:
        assert tuple(tags) == METRICS[name].tags
        self.told.append((name, value, tags))

    def sum(self, wanted: str, **tags: str) -> float:
        """Of all values of a metric with these tags."""
        return sum(value for name, value, told in self.told if name == wanted and tags.items() <= told.items())


def service(
    folder: Path,
    load: Load | None = None,
    batch: Batch | None = None,
    meter: Noted | None = None,
    quality: Callable[[str], Mapping[str, float]] = lambda name: {},
    **config: Any,
) -> Service:
    """A service on a workspace without a release; ``publish`` gives it one."""
    checked = ServingConfig.model_validate(config)

    def plain(name: str, *, quietly: bool) -> Retriever:
        return builders.retriever(release=name, table=catalogue(), config=checked)

    return Service(Current(Store(str(folder)), load or plain, meter), checked, batch, meter, quality=quality)


def publish(running: Service, folder: Path, name: str = "r1") -> None:
    """Publish a release and have the service take it."""
    pointer.publish(Store(str(folder)), name)
    running.current.poll()


class Web:
    """A caller of the application, on an event loop that goes on from request to request, as a replica's does."""

    def __init__(self, running: Service, *tokens: str) -> None:
        transport = httpx.ASGITransport(http.application(running, Tokens(tokens)), raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://service")
        self._runner = asyncio.Runner()

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._http.aclose())
        self._runner.close()

    def get(self, path: str, **how: Any) -> httpx.Response:
        """One request."""
        return self._runner.run(self._http.get(path, **how))

    def post(self, path: str, **how: Any) -> httpx.Response:
        """One request."""
        return self._runner.run(self._http.post(path, **how))

    def request(self, method: str, path: str, **how: Any) -> httpx.Response:
        """One request."""
        return self._runner.run(self._http.request(method, path, **how))

    def at_once(self, path: str, bodies: Sequence[Any]) -> list[httpx.Response]:
        """One POST a body, all under way together."""

        async def all_of_them() -> list[httpx.Response]:
            return list(await asyncio.gather(*(self._http.post(path, json=body) for body in bodies)))

        return self._runner.run(all_of_them())
