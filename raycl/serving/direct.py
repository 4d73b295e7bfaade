"""The short way to an answer: a well-formed ``POST /v1/retrieve`` is read and written without FastAPI.

Whatever it cannot read goes on to the application, which says by field what is wrong, so both ways answer alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace

from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raycl.errors import InputError
from raycl.serving.api import Answers, Queries, Query
from raycl.serving.guard import headers_of, problem
from raycl.serving.remote import NoShard
from raycl.serving.service import NotReady, Service, TooLate

PATH = "/v1/retrieve"
REFUSALS: Mapping[type[Exception], int] = {InputError: 422, NotReady: 503, NoShard: 503, TooLate: 504}
"""Statuses of what a service raises."""

_TIMEOUT = "x-request-timeout-ms"
_TIMING = b"x-request-timing"
"""A request whose header of this name is 1 is told where its time went."""
_ROUTE = SimpleNamespace(path=PATH)
_JSON = (b"content-type", b"application/json")


class Direct:
    """ASGI middleware; what stands before it hands it the whole body in one message."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the application answer."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers, first = headers_of(scope), await receive()
        asked = None if first.get("more_body") else read(headers.get(b"content-type", b""), first.get("body", b""))
        if asked is None:
            await self._app(scope, _again(first, receive), send)
            return
        scope["route"] = _ROUTE  # as a router leaves it
        given = headers.get(_TIMEOUT.encode())
        phases: dict[str, float] | None = {} if headers.get(_TIMING) == b"1" else None
        try:
            told = await answer(self._service, asked, None if given is None else given.decode("latin-1"), phases)
        except tuple(REFUSALS) as error:
            await refusal(scope, error)(scope, receive, send)
            return
        body = told.__pydantic_serializer__.to_json(told)
        length = (b"content-length", str(len(body)).encode())
        timing = [(b"server-timing", _timing(phases))] if phases is not None else []
        await send({"type": "http.response.start", "status": 200, "headers": [length, _JSON, *timing]})
        await send({"type": "http.response.body", "body": body})


def read(content_type: bytes, body: bytes) -> Query | Queries | None:
    """What is asked; None for what is not plainly one query, or several, in JSON."""
    if content_type.partition(b";")[0].strip() != b"application/json":
        return None
    # The word may stand elsewhere than at the top, and then FastAPI finds out.
    kind: type[Query | Queries] = Queries if b'"queries"' in body else Query
    try:
        return kind.model_validate_json(body)
    except ValidationError:
        return None


async def answer(
    service: Service, asked: Query | Queries, timeout_ms: str | None, phases: dict[str, float] | None = None
) -> BaseModel:
    """An ``Answer``, or ``Answers`` to ``Queries``; raises as the service does, and InputError for a bad timeout."""
    within = within_s(service, timeout_ms)
    if isinstance(asked, Query):
        return (await service.retrieve([asked], within, phases))[0]
    answers = await service.retrieve(asked.queries, within, phases)
    return Answers(release=answers[0].release, answers=answers)


def within_s(service: Service, timeout_ms: str | None) -> float:
    """The service's deadline, or the caller's where that is less; InputError for one that is no time."""
    most = service.config.guard.deadline_ms
    if timeout_ms is None:
        return most / 1000
    try:
        wanted = float(timeout_ms)
    except ValueError:
        wanted = math.nan
    if not wanted > 0.0:
        raise InputError(f"{_TIMEOUT}={timeout_ms!r} is no number of milliseconds above 0")
    return min(wanted, most) / 1000


def refusal(scope: Scope, error: Exception) -> JSONResponse:
    """The answer to a request that came to this error of ``REFUSALS``."""
    status = next(status for kind, status in REFUSALS.items() if isinstance(error, kind))
    return problem(scope, status, str(error), **({"retry-after": "1"} if status == 503 else {}))


def _timing(phases: Mapping[str, float]) -> bytes:
    """``Server-Timing``, in milliseconds."""
    return ", ".join(f"{name};dur={1000 * seconds:.3f}" for name, seconds in phases.items()).encode()


def _again(first: Message, rest: Receive) -> Receive:
    waiting = [first]

    async def receive() -> Message:
        return waiting.pop() if waiting else await rest()

    return receive
