"""
Errors as Kubernetes knows them (metav1.Status): one table maps our exceptions to statuses, and nothing else gets out.

None carries Retry-After: client-go would obey it inside cert-manager's worker, ten times over.
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
"""Seconds between two notes of refusals of one kind: kube-apiserver comes back ten times a minute."""

STATUSES: dict[type[ResponderError], tuple[int, str]] = {
    Invalid: (400, "BadRequest"),
    Unauthenticated: (401, "Unauthorized"),
    Refused: (403, "Forbidden"),
    NotFound: (404, "NotFound"),
    Unavailable: (500, "InternalError"),
}
"""The nearest class of an error's ancestry decides. (503 would mark the whole group as stale.)"""

_HTTP = {
    404: ("NotFound", "there is no such path here"),
    405: ("MethodNotAllowed", "this path takes another method"),
    413: ("RequestEntityTooLarge", "the body is larger than any ChallengePayload"),
    415: ("UnsupportedMediaType", "the body has to be application/json, and not compressed"),
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
        response = status(500, "InternalError", "the webhook did not get all that it needs in time")
        note(request, response)
    except Exception as fault:  # noqa: BLE001  # the edge of a request
        response = internal(fault)
    return response


def note(request: web.BaseRequest, response: web.StreamResponse, reason: str = "") -> None:
    """Log what was refused. What is asked again and again is told once in a while."""
    path = request.rel_url.raw_path[:128]  # still with its %XX: nothing in it can command a terminal
    if (more := _notes.due(f"{response.status} {reason}")) is not None:
        _log.warning("refused", method=request.method[:16], path=path, status=response.status, reason=reason, more=more)


def internal(fault: BaseException | None) -> web.Response:
    _log.error("a request brought out a fault", exc_info=fault)
    return status(500, "InternalError", "this is a fault of the webhook; its log has the details")


def malformed() -> web.Response:
    return status(400, "BadRequest", "this is not HTTP/1.1 as RFC 9112 has it, or too long")


def for_http(error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals, with texts of ours."""
    if isinstance(error, web.HTTPBadRequest):
        return malformed()
    reason, message = _HTTP.get(error.status, ("BadRequest", error.reason))
    return status(error.status, reason, message)


def status(code: int, reason: str, message: str) -> web.Response:
    """A refusal, as every client of Kubernetes reads it."""
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
