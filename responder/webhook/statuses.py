"""
Errors in the form of Kubernetes (metav1.Status). One table maps our exceptions to statuses; no other text is ever sent.

No response has Retry-After: client-go would wait that long in a worker of cert-manager, up to ten times.
"""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from responder.connections import Fallback
from responder.errors import Invalid, NotFound, Refused, ResponderError, Unauthenticated, Unavailable, by_ancestry
from responder.logs import Seldom

RESPONSE_DEADLINE = 28.0
"""Seconds from a request to its response. kube-apiserver waits for 34 s, as for every create."""

NOTE_INTERVAL = 60.0
"""Seconds between two log lines about the same refusal: kube-apiserver tries again ten times a minute."""

STATUSES: dict[type[ResponderError], tuple[int, str]] = {
    Invalid: (400, "BadRequest"),
    Unauthenticated: (401, "Unauthorized"),
    Refused: (403, "Forbidden"),
    NotFound: (404, "NotFound"),
    Unavailable: (500, "InternalError"),
}
"""The nearest ancestor of an error's class that is here decides. (503 would mark the whole group as stale.)"""

_HTTP = {
    404: ("NotFound", "the path does not exist"),
    405: ("MethodNotAllowed", "this path does not support the method"),
    413: ("RequestEntityTooLarge", "the body is too large for a ChallengePayload"),
    415: ("UnsupportedMediaType", "the body must be application/json, and not compressed"),
}

_log = structlog.get_logger("webhook")
_notes = Seldom(NOTE_INTERVAL)


@web.middleware
async def respond_with_statuses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a Status, and also a request that takes too long."""
    try:
        async with asyncio.timeout(RESPONSE_DEADLINE):
            response = await handler(request)
    except ResponderError as error:
        code, reason = by_ancestry(error, STATUSES)
        response = status(code, reason, str(error))
        note(request, response, str(error))
    except web.HTTPException as error:
        response = for_http(error)
        note(request, response)
    except TimeoutError:
        response = status(500, "InternalError", "the webhook could not finish the request in time: try again later")
        note(request, response)
    except Exception as fault:  # noqa: BLE001  # the edge of a request
        response = internal(fault)
    return response


def note(request: web.BaseRequest, response: web.StreamResponse, reason: str = "") -> None:
    """Log a refusal; the same refusal is logged only once per interval."""
    path = request.rel_url.raw_path[:128]  # percent-encoded, so that it cannot control a terminal
    if (more := _notes.due(f"{response.status} {reason}")) is not None:
        _log.warning("refused", method=request.method[:16], path=path, status=response.status, reason=reason, more=more)


def internal(fault: BaseException | None) -> web.Response:
    _log.error("unhandled exception while handling a request", exc_info=fault)
    return status(500, "InternalError", "the webhook has an internal error: see its log for the details")


def malformed() -> web.Response:
    return status(400, "BadRequest", "the request is not valid HTTP/1.1 (RFC 9112), or its head is too long")


def for_http(error: web.HTTPException) -> web.Response:
    """The Status for an error of aiohttp's own."""
    if isinstance(error, web.HTTPBadRequest):
        return malformed()
    reason, message = _HTTP.get(error.status, ("BadRequest", error.reason))
    return status(error.status, reason, message)


def status(code: int, reason: str, message: str) -> web.Response:
    """A response with a Status, which every client of Kubernetes can read."""
    document = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return web.json_response(document, status=code)


FALLBACK = Fallback(malformed=malformed, internal=internal, for_http=for_http, note=note)
