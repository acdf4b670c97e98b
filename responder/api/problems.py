"""
Errors as problem documents (RFC 9457): one table maps our exceptions to statuses, and nothing else ever gets out.

That includes what aiohttp would answer by itself, before any handler of ours is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from aiohttp import web

from responder.errors import (
    Invalid,
    NotCovered,
    NotFound,
    Refused,
    ResponderError,
    TooManyValues,
    Unauthenticated,
    Unavailable,
    WrongNetwork,
)

RETRY_AFTER = "5"
"""Seconds that a client is asked to wait when we are at fault."""

LINGER = 1.0
"""Seconds for the rest of a body that nobody wants, so that its sender gets to read why (RFC 9112, section 9.6)."""

STATUSES: dict[type[ResponderError], tuple[int, str]] = {
    Invalid: (400, "invalid-request"),
    Unauthenticated: (401, "unauthenticated"),
    NotCovered: (403, "not-covered"),
    WrongNetwork: (403, "wrong-network"),
    Refused: (403, "refused"),
    NotFound: (404, "not-found"),
    TooManyValues: (409, "too-many-values"),
    Unavailable: (503, "unavailable"),
}
"""The nearest class of an error's ancestry decides."""

_TITLES = {
    400: "The request makes no sense",
    401: "No valid token",
    403: "Not allowed",
    404: "No such thing",
    405: "Method not allowed",
    408: "The request took too long",
    409: "Too many values",
    413: "The request is too large",
    417: "The expectation cannot be met",
    500: "A fault of ours",
    503: "Temporarily unavailable",
}

_log = structlog.get_logger("api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def answer_with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem document, and log each request once."""
    try:
        response = await handler(request)
    except ResponderError as error:
        response = _problem_for(error)
    except web.HTTPException as error:
        response = _problem_for_http(error)
    except Exception as fault:  # noqa: BLE001  # the edge of a request
        response = _internal(fault)
    _note(request, response)
    return response


class Runner(web.AppRunner):
    """
    As aiohttp's own, but problem documents also answer what never becomes a request of the application.

    Requests under way get *drain* seconds to finish when it is stopped.
    """

    def __init__(self, app: web.Application, *, drain: float) -> None:
        super().__init__(app, access_log=None, handle_signals=False, shutdown_timeout=drain, lingering_time=LINGER)

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp has no other way to choose the class of its connections
        return server


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp's own puts *message* into the answer and the log; it quotes the request, and so perhaps a token."""
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer cannot become another")
        if status == 400:
            response = _problem(400, "malformed-http", "this is not HTTP/1.1 as RFC 9112 has it, or too long")
        else:
            response = _internal(exc)
        _note(request, response)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """An expectation is refused before any middleware is asked (RFC 9110, section 10.1.1)."""
        if isinstance(resp, web.HTTPException):
            resp = _problem_for_http(resp)
            _note(request, resp)
        resp.headers["Server"] = "responder"  # without the versions that aiohttp would tell
        return await super().finish_response(request, resp, start_time)


def _note(request: web.BaseRequest, response: web.StreamResponse) -> None:
    path = request.rel_url.raw_path[:128]  # still with its %XX: nothing in it can command a terminal
    _log.info("request", method=request.method[:16], path=path, status=response.status, client=request.remote)


def _internal(fault: BaseException | None) -> web.Response:
    _log.error("a request brought out a fault", exc_info=fault)
    return _problem(500, "internal", "this is a fault of the service; its log has the details")


def _problem_for(error: ResponderError) -> web.Response:
    status, kind = next(STATUSES[ancestor] for ancestor in type(error).__mro__ if ancestor in STATUSES)
    if status == 503:
        # Paths and the like are for the administrator, not for whoever asks.
        _log.error("unavailable", reason=str(error))
        response = _problem(status, kind, "the service cannot do this now; trying again is safe")
        response.headers["Retry-After"] = RETRY_AFTER
        return response
    response = _problem(status, kind, str(error), getattr(error, "faults", None))
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="responder", Basic realm="responder"'
    return response


def _problem_for_http(error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals, with texts of ours."""
    match error:
        case web.HTTPNotFound():
            return _problem(404, "no-such-route", "there is no such route here: see /openapi.json")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            response = _problem(405, "method-not-allowed", f"this route takes {allowed} only")
            response.headers["Allow"] = allowed
            return response
        case web.HTTPRequestTimeout():
            return _problem(408, "timeout", "the request body did not arrive in time")
        case web.HTTPRequestEntityTooLarge():
            return _problem(413, "too-large", "the request body is larger than this route takes")
        case web.HTTPExpectationFailed():
            return _problem(417, "expectation-failed", "the only expectation that is met here is 100-continue")
        case _:
            return _problem(error.status, "http", error.reason)


def _problem(status: int, kind: str, detail: str, faults: Sequence[str] | None = None) -> web.Response:
    document: dict[str, Any] = {
        "type": f"urn:responder:problem:{kind}",
        "title": _TITLES.get(status, "Not possible"),
        "status": status,
        "detail": detail,
    }
    if faults:
        document["faults"] = list(faults)
    return web.json_response(document, status=status, content_type="application/problem+json")
