"""Shards as deployments of their own on Ray Serve, and the calls to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ray import serve
from ray.serve.handle import DeploymentHandle

from raycl.config import ServingConfig
from raycl.errors import RayclError
from raycl.index import release
from raycl.serving import collector, ray_scaling
from raycl.serving.remote import Parts, Question
from raycl.serving.shard import Shard, Shards
from raycl.storage import pointer
from raycl.storage.store import Store

log = logging.getLogger(__name__)

_AGAIN_S = 0.2


@serve.deployment(name="Shard", health_check_period_s=10)
class ShardReplica:
    """Answers for one part of the index, of the releases that it is asked for; the published one is loaded ahead."""

    def __init__(self, workspace: str, part: int, parts: int) -> None:
        collector.spare_modules()
        self._store = store = Store(workspace)

        def load(name: str, *, quietly: bool) -> Shard:
            return Shard(*release.load_part(store.under(f"releases/{name}"), part, parts, quietly=quietly))

        self._shards = Shards(load)
        published = pointer.current(store)
        if published is not None:
            try:
                self._shards.of(published.release)
            except RayclError:
                log.exception("part %d of release %s cannot be loaded ahead", part, published.release)

    async def ask(self, name: str, what: str, *how: Any) -> Any:
        """``Shards.ask``, in a thread."""
        return await asyncio.to_thread(self._shards.ask, name, what, *how)


def bound(workspace: str, config: ServingConfig) -> list[serve.Application]:
    """A deployment for each part."""
    shards = config.shards
    return [
        ShardReplica.options(  # type: ignore[attr-defined]
            name=f"Shard{part}",
            ray_actor_options={"num_cpus": shards.num_cpus},
            max_ongoing_requests=4 * config.target_ongoing_requests,
            autoscaling_config=ray_scaling.settings(config, shards.min_replicas, shards.max_replicas),
        ).bind(workspace, part, shards.parts)
        for part in range(shards.parts)
    ]


class Calls:
    """Asks the parts through Serve; threads call it, and one event loop carries the calls."""

    def __init__(self, handles: Sequence[DeploymentHandle[Any]], config: ServingConfig) -> None:
        """On the event loop that is to carry them."""
        self._handles, self._timeouts = handles, config.shards
        self._loop = asyncio.get_running_loop()
        self._missed: dict[tuple[str, int], asyncio.Task[None]] = {}
        """Releases and parts that did not answer, and what waits until they do: meanwhile no batch waits for them."""

    def of(self, name: str) -> Parts:
        """The parts of the release of this name."""
        return Parts(self._asking(name), len(self._handles))

    def _asking(self, name: str) -> Callable[[Sequence[Question]], Sequence[Any]]:
        def ask(questions: Sequence[Question]) -> Sequence[Any]:
            return asyncio.run_coroutine_threadsafe(self._all(name, questions), self._loop).result()

        return ask

    async def _all(self, name: str, questions: Sequence[Question]) -> Sequence[Any]:
        return await asyncio.gather(*(self._one(name, question) for question in questions))

    async def _one(self, name: str, question: Question) -> Any:
        part, what, how = question
        if (name, part) in self._missed and what != "facts":
            return None
        # What a part holds is asked for once, and may have to be loaded first.
        limit_s = self._timeouts.load_s if what == "facts" else self._timeouts.timeout_ms / 1000
        try:
            answer = await asyncio.wait_for(_answer(self._handles[part].ask.remote(name, what, *how)), limit_s)
        except Exception as error:
            log.warning("part %d does not answer %s of release %s: %r", part, what, name, error)
            if what != "facts" and (name, part) not in self._missed:
                self._missed[name, part] = asyncio.create_task(self._until_back(name, part))
            return None
        for other in [key for key in self._missed if key[1] == part and key[0] != name]:
            self._missed.pop(other).cancel()  # of a release that may never be loaded again
        return answer

    async def _until_back(self, name: str, part: int) -> None:
        """Ask for nothing until it comes; a replica in the place of one that died loads the release first."""
        nothing = np.zeros(0, dtype=np.int64)
        while True:
            try:
                await asyncio.wait_for(
                    _answer(self._handles[part].ask.remote(name, "vectors", nothing)), self._timeouts.load_s
                )
            except Exception:
                await asyncio.sleep(_AGAIN_S)
            else:
                self._missed.pop((name, part), None)
                log.warning("part %d answers again", part)
                return


async def _answer(response: Any) -> Any:
    return await response
