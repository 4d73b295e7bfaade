"""What stands before every handler: request ids, tokens, rates, a bounded body, shed load, one line of log.

No exception gets past it: the caller reads that something failed and the request's id, the log has the rest.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raycl.config_serving import GuardConfig
from raycl.serving.meter import Meter
from raycl.serving.tokens import Rate, Tokens, whole_seconds

log = logging.getLogger(__name__)
requests_log = logging.getLogger("raycl.requests")
"""One JSON object a request, without anything of its content: neither user nor items, address or token."""

OPEN = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")
"""Paths that need no token and are never shed."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_TEXT = 300

Headers = Mapping[bytes, bytes]


def problem(scope: Scope, status: int, detail: str | list[dict[str, Any]], **headers: str) -> JSONResponse:
    """An ``api.Problem``, with text that any JSON reader takes, and no more than a few hundred characters of it."""
    body = {"detail": detail if isinstance(detail, list) else short(detail), "request_id": scope["state"]["request_id"]}
    return JSONResponse(body, status, headers)


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The request's headers by their names in small letters; of several of one name the first."""
    return {name.lower(): value for name, value in reversed(scope["headers"])}


def short(text: str) -> str:
    """At most 300 characters, and none that UTF-8 cannot write."""
    clean = text.encode(errors="replace").decode()
    return clean if len(clean) <= _MOST_TEXT else clean[: _MOST_TEXT - 3] + "..."


class Guard:
    """ASGI middleware; one event loop calls it."""

    def __init__(
        self,
        app: ASGIApp,
        config: GuardConfig,
        tokens: Tokens,
        meter: Meter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._config, self._tokens = app, config, tokens
        self._meter, self._clock, self._rate = meter, clock, Rate(config, clock)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the application answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = self._clock(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._guarded(scope, headers, receive, answer)
        except Exception:
            log.exception("request %s failed", request_id)
            if status == 0:
                told = "the service failed; its log has the reason under this request id"
                await problem(scope, 500, told)(scope, receive, answer)
        finally:
            self._record(scope, status, self._clock() - started)

    async def _guarded(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope, headers)
        body = None if refusal else await self._body(headers, receive)
        if refusal is None and body is None:
            most = self._config.max_body_bytes
            refusal = problem(scope, 413, f"the body is above serving.guard.max_body_bytes={most}: send less at once")
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        messages = iter([{"type": "http.request", "body": body or b"", "more_body": False}])

        async def replay() -> Message:
            return next(messages, None) or await receive()

        self._in_flight += 1
        try:
            await self._app(scope, replay, send)
        finally:
            self._in_flight -= 1

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        """Why this request may not pass; None for one that may."""
        given = headers.get(b"authorization")
        caller = self._tokens.caller(None if given is None else given.decode("latin-1"))
        if caller is None:
            told = "a bearer token that this service knows is needed in the Authorization header"
            return problem(scope, 401, told, **{"www-authenticate": "Bearer"})
        wait = self._rate.wait_s(caller or str((scope.get("client") or ("",))[0]))
        if wait > 0.0:
            self._meter.add("raycl_shed_requests", why="rate")
            told = "too many requests of this caller: ask again later"
            return problem(scope, 429, told, **{"retry-after": whole_seconds(wait)})
        if self._in_flight >= self._config.max_in_flight:
            self._meter.add("raycl_shed_requests", why="load")
            return problem(scope, 503, "the service is at its limit: ask again later", **{"retry-after": "1"})
        return None

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None for one that is too large, of which no more than the limit is kept."""
        most, size = self._config.max_body_bytes, 0
        parts: list[bytes] = []
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > most:
            return None
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return b"".join(parts)
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._meter.add("raycl_requests", route=route, status=str(status))
        self._meter.observe("raycl_request_seconds", seconds, route=route)
        if not requests_log.isEnabledFor(logging.INFO):
            return
        line = {
            "request_id": scope["state"]["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 3),
        }
        requests_log.info(json.dumps(line))
