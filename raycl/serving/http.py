"""The service's routes on FastAPI: requests in and answers out, every refusal an ``api.Problem``."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Body, FastAPI, Path, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from raycl.serving import api, direct, docs, page
from raycl.serving.api import Answer, Answers, Asked, Described, Events, Problem, Quality, Status
from raycl.serving.direct import Direct
from raycl.serving.guard import Guard, problem, short
from raycl.serving.service import Service
from raycl.serving.tokens import Tokens

_MOST_PROBLEMS, _MOST_STEPS = 10, 12
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 413, 422, 429, 500, 503, 504)
}
_FOR_ASKING: dict[str, Any] = {"responses": _REFUSALS, "dependencies": [Security(HTTPBearer(auto_error=False))]}


class Application(FastAPI):
    """Routes behind ``Guard`` and ``Direct``.

    Both stand before FastAPI's own layers, which would cost a plain question a tenth of its time.
    """

    def __init__(self, service: Service, tokens: Tokens) -> None:
        super().__init__(
            title="raycl",
            version="1",
            description="Retrieval from the published release.",
            docs_url=None,
            redoc_url=None,
        )
        self._front = Guard(Direct(super().__call__, service), service.config.guard, tokens, service.meter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await self._front(scope, receive, send)


def application(service: Service, tokens: Tokens) -> FastAPI:
    """The whole HTTP application in front of a service."""
    app = Application(service, tokens)
    app.state.service = service
    app.state.docs = functools.cache(lambda: docs.page(app.openapi()))  # made once, since nobody is turned away there
    app.add_api_route(direct.PATH, _retrieve, methods=["POST"], response_model=Answer | Answers, **_FOR_ASKING)
    app.add_api_route(
        "/v1/items/{item_id:path}/similar", _similar, methods=["GET"], response_model=Answer, **_FOR_ASKING
    )
    app.add_api_route("/v1/events", _events, methods=["POST"], **_FOR_ASKING)
    app.add_api_route("/v1/release", _release, methods=["GET"], **_FOR_ASKING)
    app.add_api_route("/v1/quality", _quality, methods=["GET"], **_FOR_ASKING)
    app.add_api_route("/", _page, methods=["GET"], include_in_schema=False)
    app.add_api_route("/docs", _docs, methods=["GET"], include_in_schema=False)
    app.add_api_route("/healthz", _healthy, methods=["GET"])
    app.add_api_route("/readyz", _ready, methods=["GET"], response_model=Status, responses={503: {"model": Status}})
    for error in direct.REFUSALS:
        app.add_exception_handler(error, _refuse)
    app.add_exception_handler(RequestValidationError, _of_wrong_form)
    app.add_exception_handler(HTTPException, _http)
    return app


async def _retrieve(request: Request, asked: Annotated[Asked, Body()]) -> Response:
    """The items nearest to the state of a user, or of several users: an ``Answer``, or ``Answers`` to ``queries``."""
    return _json(await direct.answer(_service(request), asked, _timeout_ms(request)))


async def _similar(
    request: Request,
    item_id: Annotated[str, Path(max_length=1_024)],
    k: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """The items nearest to one item; other parameters are its values by column, for an item that is not known."""
    features = {name: value for name, value in request.query_params.items() if name != "k"}
    within_s = direct.within_s(_service(request), _timeout_ms(request))
    return _json(await _service(request).similar(item_id, features, k, within_s))


async def _events(request: Request, posted: Events) -> api.Accepted:
    """Remember what users did just now: at this replica, for a while, and for the answers to their ``user_id``."""
    return api.Accepted(accepted=_service(request).remember(posted.events))


async def _release(request: Request) -> Described:
    """Which release answers, and why a newer one does not."""
    return _service(request).described()


async def _quality(request: Request) -> Quality:
    """What the gate measured of the release that answers, when it was built."""
    return _service(request).quality()


async def _page() -> Response:
    """The page for people; it asks this service as anyone does."""
    return HTMLResponse(page.page(), headers={"content-security-policy": page.POLICY})


async def _docs(request: Request) -> Response:
    """The documentation of every route and field."""
    return HTMLResponse(request.app.state.docs(), headers={"content-security-policy": docs.POLICY})


async def _healthy() -> Status:
    """That the process answers at all."""
    return Status(status="ok")


async def _ready(request: Request) -> Response:
    """Whether there is a release to answer from."""
    ready = _service(request).ready()
    return JSONResponse({"status": "ready" if ready else "no release"}, 200 if ready else 503)


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def _timeout_ms(request: Request) -> str | None:
    return request.headers.get("x-request-timeout-ms")


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    return direct.refusal(request.scope, error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(request.scope, error.status_code, str(error.detail), **dict(error.headers or {}))


async def _of_wrong_form(request: Request, error: Exception) -> Response:
    """What is wrong by field; what was sent is not sent back."""
    assert isinstance(error, RequestValidationError)
    return problem(request.scope, 422, [_told(one) for one in error.errors()[:_MOST_PROBLEMS]])


def _told(one: dict[str, Any]) -> dict[str, Any]:
    return {"loc": _place(one["loc"]), "msg": short(str(one["msg"])), "type": one["type"]}


def _place(loc: Sequence[Any]) -> list[Any]:
    """The path of a field, without the word that says whether the body is one query or many."""
    steps = [step for at, step in enumerate(loc) if not (at == 1 and step in ("one", "many"))]
    return [short(step) if isinstance(step, str) else step for step in steps[:_MOST_STEPS]]
