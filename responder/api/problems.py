"""
Errors as problem documents (RFC 9457). One table maps our exceptions to statuses; no other error text is ever sent.

Errors that aiohttp finds by itself, before it calls a handler, become problem documents, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from responder import metrics
from responder.connections import Fallback
from responder.errors import (
    Invalid,
    NotAChallenge,
    NotCovered,
    NotFound,
    NotServed,
    Refused,
    ResponderError,
    TooManyRequests,
    TooManyValues,
    Unauthenticated,
    Unavailable,
    Unconfirmed,
    WrongAccount,
    WrongNetwork,
    by_ancestry,
)
from responder.logs import REMINDER, Seldom
from responder.store import Outcome
from responder.tokens.token import Grant

RETRY_AFTER = "5"
"""Seconds that a client is asked to wait after a fault of the service."""

STATUSES: dict[type[ResponderError], tuple[int, str]] = {
    Invalid: (400, "invalid-request"),
    TooManyRequests: (429, "too-many-requests"),
    Unauthenticated: (401, "unauthenticated"),
    NotCovered: (403, "not-covered"),
    WrongNetwork: (403, "wrong-network"),
    WrongAccount: (403, "pinned"),
    NotAChallenge: (403, "not-a-challenge"),
    Refused: (403, "refused"),
    NotFound: (404, "not-found"),
    NotServed: (403, "not-served"),
    TooManyValues: (409, "too-many-values"),
    Unconfirmed: (503, "unconfirmed"),
    Unavailable: (503, "unavailable"),
}
"""Status and problem type of each class of errors. The nearest ancestor of an error's class that is here decides."""

_TITLES = {
    400: "The request is invalid",
    401: "No valid token",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "The request took too long",
    409: "Too many values",
    413: "The request is too large",
    415: "The encoding of the body is not supported",
    417: "The expectation cannot be met",
    429: "Too many requests",
    500: "Internal error",
    501: "Not supported",
    503: "Temporarily unavailable",
    505: "Not supported",
}

SLASHES = ("/", "//")
"""What a path may begin with: clients such as acme.sh append "/present" to a base URL that ends with a slash."""

POLLED = frozenset({"/health", "/livez", "/readyz", "/metrics"})
"""Routes that monitoring requests every few seconds. Their successes would be most of the log."""

LIMITED_INTERVAL = 1.0
"""Seconds between two log lines about requests that exceed a limit."""

KIND = web.ResponseKey("kind", str)
"""The kind of error, as the metrics name it. A response without it is a success."""

ROUTES_HINT = web.AppKey("routes-hint", str)
"""Where to find the routes of an application, for the response to a request for an unknown path."""

_ROUTE = web.RequestKey("route", str)

_log = structlog.get_logger("api")
_limited = Seldom(LIMITED_INTERVAL)
_lasting = Seldom(REMINDER)


@web.middleware
async def respond_with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem document, and log each request once."""
    if (resource := request.match_info.route.resource) is not None:
        request[_ROUTE] = resource.canonical.replace("//", "/")  # not the path, which a client can choose freely
    try:
        response = await handler(request)
    except ResponderError as error:
        note_reason(error)
        response = _problem_for(error)
    except web.HTTPException as error:
        response = for_http(error, request.app.get(ROUTES_HINT, ""))
    except Exception as fault:  # noqa: BLE001  # the edge of a request
        response = internal(fault)
    note(request, response)
    return response


def note(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Count a request and log it; of requests that exceed a limit, and of failing polls, log only one per interval."""
    route, outcome = request.get(_ROUTE, "none"), response.get(KIND, "ok")
    metrics.REQUESTS.labels(route, outcome).inc()
    more: int | None = 0
    if response.status == 429:
        more = _limited.due("429")
    elif route in POLLED and outcome != "ok":
        more = _lasting.due(f"{route} {outcome}")
    if more is None:
        return
    path = request.rel_url.raw_path[:128]  # percent-encoded, so that it cannot control a terminal
    fields = {"method": request.method[:16], "path": path, "status": response.status, "client": request.remote}
    if outcome != "ok":
        fields["outcome"] = outcome
    if more:
        fields["more"] = more
    write = _log.debug if route in POLLED and outcome == "ok" else _log.info
    write("request", **fields)


def note_hostname(grant: Grant, outcome: Outcome) -> None:
    """Add the hostname and the serial to the log line of this request."""
    structlog.contextvars.bind_contextvars(hostname=str(grant.hostname), serial=outcome.serial)


def note_reason(error: ResponderError) -> None:
    """
    Add the reason of a refusal to the log line of this request.

    Errors that quote what was sent are left out: the client could have sent a token in the wrong place.
    """
    if isinstance(error, Refused) and not isinstance(error, NotCovered):
        reason = error.reason if isinstance(error, Unauthenticated) else str(error)
        structlog.contextvars.bind_contextvars(reason=reason)


def internal(fault: BaseException | None) -> web.Response:
    _log.error("unhandled exception while handling a request", exc_info=fault)
    return problem(500, "internal", "the service has an internal error: see its log for the details")


def malformed() -> web.Response:
    return problem(400, "malformed-http", "the request is not valid HTTP/1.1 (RFC 9112), or its head is too long")


def _problem_for(error: ResponderError) -> web.Response:
    status, kind = by_ancestry(error, STATUSES)
    if isinstance(error, Unconfirmed):
        _log.warning("unconfirmed", nodes=error.nodes)
        response = problem(status, kind, str(error), unconfirmed=error.nodes)
        response.headers["Retry-After"] = RETRY_AFTER
        return response
    if status == 503:
        log_unavailable(error)
        response = problem(status, kind, "the service cannot do this now: try again later, which is safe")
        response.headers["Retry-After"] = RETRY_AFTER
        return response
    response = problem(status, kind, str(error), getattr(error, "faults", None))
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="responder", Basic realm="responder"'
    return response


def log_unavailable(error: ResponderError) -> None:
    """Log the reason, which may have paths and other details that the client must not see."""
    if (more := _lasting.due(str(error))) is not None:
        _log.error("unavailable", reason=str(error), more=more)


def for_http(error: web.HTTPException, hint: str = "") -> web.Response:
    """The problem document for an error of aiohttp's own; *hint* is where to find the routes."""
    match error:
        case web.HTTPNotFound():
            return problem(404, "no-such-route", f"there is no such route here: {hint}".removesuffix(": "))
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            response = problem(405, "method-not-allowed", f"this route accepts only {allowed}")
            response.headers["Allow"] = allowed
            return response
        case web.HTTPRequestTimeout():
            return problem(408, "timeout", "the request body did not arrive in time")
        case web.HTTPRequestEntityTooLarge():
            return problem(413, "too-large", "the request body is larger than this route accepts")
        case web.HTTPUnsupportedMediaType():
            response = problem(415, "content-coding", "the body is compressed: send it without a Content-Encoding")
            response.headers["Accept-Encoding"] = "identity"  # RFC 9110, section 12.5.3
            return response
        case web.HTTPExpectationFailed():
            return problem(417, "expectation-failed", "the only supported expectation is 100-continue")
        case web.HTTPNotImplemented():
            return problem(501, "transfer-coding", "the only supported Transfer-Encoding is chunked")
        case web.HTTPVersionNotSupported():
            return problem(505, "http-version", "the supported versions of HTTP are 1.1 and 1.0")
        case web.HTTPBadRequest():
            return malformed()
        case _:
            return problem(error.status, "http", error.reason)


FALLBACK = Fallback(malformed=malformed, internal=internal, for_http=for_http, note=note)


def problem(
    status: int, kind: str, detail: str, faults: Sequence[str] | None = None, **members: Sequence[str]
) -> web.Response:
    """A response with a problem document (RFC 9457); *members* are its extension members."""
    document: dict[str, Any] = {
        "type": f"urn:responder:problem:{kind}",
        "title": _TITLES.get(status, "Not possible"),
        "status": status,
        "detail": detail,
        **members,
    }
    if faults:
        document["faults"] = list(faults)
    response = json_response(document, status=status, content_type="application/problem+json")
    response[KIND] = kind
    return response


def json_response(data: object, status: int = 200, content_type: str = "application/json") -> web.Response:
    """A response with *data* as one line of JSON, with a newline at its end, for those who use curl in a terminal."""
    return web.Response(text=json.dumps(data) + "\n", status=status, content_type=content_type)
