"""The retrieval service on Ray Serve: replicas that hold the whole release, behind one HTTP route.

No ``from __future__ import annotations`` here: FastAPI reads the handlers' annotations as they stand.
"""

import asyncio
import contextlib
import logging
import random
from typing import Any

from fastapi import FastAPI, HTTPException
from ray import serve

from raycl import config_file
from raycl.config import ServingConfig
from raycl.errors import ConfigError, InputError, RayclError
from raycl.index import release
from raycl.serving.api import Answer, Query
from raycl.serving.current import Current
from raycl.serving.retriever import Checked, Retriever
from raycl.storage.store import Store

NAME = "raycl"
api = FastAPI(title="raycl", docs_url="/docs")


@serve.deployment(name="Retrieval", health_check_period_s=10)
@serve.ingress(api)
class Retrieval:
    """Answers whole batches from one release; a newer one is loaded in the background and taken between batches."""

    def __init__(self, workspace: str, serving: dict[str, Any]) -> None:
        """``serving``: the ``serving`` part of the config, as plain values."""
        self._config = ServingConfig.model_validate(serving)
        store = Store(workspace)
        self._current = Current(store, lambda name: Retriever.of(release.load(store.under(f"releases/{name}"))))
        self._current.poll()
        self._answer_batch.set_max_batch_size(self._config.max_batch_size)  # type: ignore[attr-defined]
        self._answer_batch.set_batch_wait_timeout_s(self._config.batch_wait_ms / 1000)  # type: ignore[attr-defined]
        self._polling: asyncio.Task[None] | None = None

    @api.post("/v1/retrieve")
    async def retrieve(self, query: Query) -> Answer:
        """The items nearest to the user's state; 422 for what cannot be answered, 503 before the first release."""
        self._keep_polling()
        if "k" not in query.model_fields_set:
            query.k = min(query.k, self._config.max_k)
        if query.k > self._config.max_k:
            raise HTTPException(422, f"k={query.k} is above serving.max_k={self._config.max_k}: ask for fewer")
        try:
            retriever = self._current.retriever
            checked = retriever.check(query)
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        except RayclError as error:
            raise HTTPException(503, str(error)) from error
        answer: Answer = await self._answer_batch((retriever, checked))
        return answer

    @api.get("/v1/release")
    async def describe(self) -> dict[str, Any]:
        """Which release answers, and why a newer one does not."""
        self._keep_polling()
        with contextlib.suppress(RayclError):
            return {"release": self._current.retriever.release, "problem": self._current.problem}
        return {"release": None, "problem": self._current.problem}

    @api.get("/healthz")
    async def healthy(self) -> dict[str, str]:
        """That the process answers at all."""
        self._keep_polling()
        return {"status": "ok"}

    @serve.batch
    async def _answer_batch(self, asked: list[tuple[Retriever, Checked]]) -> list[Answer]:
        """Each query by the release it was checked against; a batch across a swap is two calls."""
        answers: dict[int, Answer] = {}
        for retriever in {id(one): one for one, _ in asked}.values():
            mine = [place for place, (one, _) in enumerate(asked) if one is retriever]
            found = await asyncio.to_thread(retriever.answer, [asked[place][1] for place in mine])
            answers |= dict(zip(mine, found, strict=True))
        return [answers[place] for place in range(len(asked))]

    def _keep_polling(self) -> None:
        """Start the loop that looks for newer releases; it lives on the replica's own event loop."""
        if self._polling is None or self._polling.done():
            self._polling = asyncio.get_running_loop().create_task(self._poll_forever())

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.to_thread(self._current.poll)
            # Replicas that started together should not read the storage together.
            await asyncio.sleep(self._config.poll_s * random.uniform(0.8, 1.2))

    async def check_health(self) -> None:
        """Called by Serve; also what starts the polling before the first request. A bad release is no ill health."""
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        self._keep_polling()


def build(args: dict[str, Any]) -> serve.Application:
    """The application, from ``workspace`` and the ``serving`` part of the config; what a Serve config file imports.

    Raises ConfigError for an argument it does not know, and for a part of the config that is not good.
    """
    unknown = set(args) - {"workspace", "serving"}
    if unknown or "workspace" not in args:
        raise ConfigError(f"args={sorted(args)}: give 'workspace' and, if wanted, 'serving', nothing else")
    config = config_file.check_part(ServingConfig, "serving", args.get("serving", {}))
    bound = Retrieval.options(  # type: ignore[attr-defined]
        max_ongoing_requests=4 * config.target_ongoing_requests,
        autoscaling_config={
            "min_replicas": config.min_replicas,
            "max_replicas": config.max_replicas,
            "target_ongoing_requests": config.target_ongoing_requests,
        },
    ).bind(str(args["workspace"]), config.model_dump(mode="json"))
    application: serve.Application = bound
    return application
