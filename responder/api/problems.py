"""
Errors as problem documents (RFC 9457): one table maps our exceptions to statuses, and nothing else ever gets out.

That includes what aiohttp would answer by itself, before any handler of ours is asked.
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
"""Seconds that a client is asked to wait when we are at fault."""

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
    415: "The body cannot be read",
    417: "The expectation cannot be met",
    429: "Too many requests",
    500: "A fault of ours",
    501: "Not supported",
    503: "Temporarily unavailable",
    505: "Not supported",
}

SLASHES = ("/", "//")
"""In front of a path: many clients (acme.sh is one) put one behind a base URL that ends with one."""

POLLED = frozenset({"/health", "/livez", "/readyz", "/metrics"})
"""Routes that somebody asks for every few seconds, for ever. While all is well they would be most of the log."""

LIMITED_INTERVAL = 1.0
"""Seconds between two log lines about requests that were too many."""

KIND = web.ResponseKey("kind", str)
"""What went wrong, as the metrics name it; a response without it is a success."""

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
        request[_ROUTE] = resource.canonical.replace("//", "/")  # paths are anybody's to make up
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
    """Count each request, and write one line about it; of those that were too many, and of polls, one now and then."""
    route, outcome = request.get(_ROUTE, "none"), response.get(KIND, "ok")
    metrics.REQUESTS.labels(route, outcome).inc()
    more: int | None = 0
    if response.status == 429:
        more = _limited.due("429")
    elif route in POLLED and outcome != "ok":
        more = _lasting.due(f"{route} {outcome}")
    if more is None:
        return
    path = request.rel_url.raw_path[:128]  # still with its %XX: nothing in it can command a terminal
    told = {"method": request.method[:16], "path": path, "status": response.status, "client": request.remote}
    if outcome != "ok":
        told["outcome"] = outcome
    if more:
        told["more"] = more
    write = _log.debug if route in POLLED and outcome == "ok" else _log.info
    write("request", **told)


def note_hostname(grant: Grant, outcome: Outcome) -> None:
    """Have the line of this request name the hostname that it was about; each request has its own context."""
    structlog.contextvars.bind_contextvars(hostname=str(grant.hostname), serial=outcome.serial)


def note_reason(error: ResponderError) -> None:
    """
    Have the line of this request give the reason why the caller is refused.

    Not where an error quotes what was sent, as one about a malformed body does: that could be a token in a wrong place.
    """
    if isinstance(error, Refused) and not isinstance(error, NotCovered):
        reason = error.reason if isinstance(error, Unauthenticated) else str(error)
        structlog.contextvars.bind_contextvars(reason=reason)


def internal(fault: BaseException | None) -> web.Response:
    _log.error("a request brought out a fault", exc_info=fault)
    return problem(500, "internal", "this is a fault of the service; its log has the details")


def malformed() -> web.Response:
    return problem(400, "malformed-http", "this is not HTTP/1.1 as RFC 9112 has it, or too long")


def _problem_for(error: ResponderError) -> web.Response:
    status, kind = by_ancestry(error, STATUSES)
    if isinstance(error, Unconfirmed):
        _log.warning("unconfirmed", nodes=error.nodes)
        response = problem(status, kind, str(error), unconfirmed=error.nodes)
        response.headers["Retry-After"] = RETRY_AFTER
        return response
    if status == 503:
        log_unavailable(error)
        response = problem(status, kind, "the service cannot do this now; trying again is safe")
        response.headers["Retry-After"] = RETRY_AFTER
        return response
    response = problem(status, kind, str(error), getattr(error, "faults", None))
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="responder", Basic realm="responder"'
    return response


def log_unavailable(error: ResponderError) -> None:
    """Paths and the like are for the administrator, not for whoever asks. The lines of the requests follow."""
    if (more := _lasting.due(str(error))) is not None:
        _log.error("unavailable", reason=str(error), more=more)


def for_http(error: web.HTTPException, hint: str = "") -> web.Response:
    """The problem document for an error of aiohttp's own; *hint* is where to find the routes."""
    match error:
        case web.HTTPNotFound():
            return problem(404, "no-such-route", f"there is no such route here: {hint}".removesuffix(": "))
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            response = problem(405, "method-not-allowed", f"this route takes {allowed} only")
            response.headers["Allow"] = allowed
            return response
        case web.HTTPRequestTimeout():
            return problem(408, "timeout", "the request body did not arrive in time")
        case web.HTTPRequestEntityTooLarge():
            return problem(413, "too-large", "the request body is larger than this route takes")
        case web.HTTPUnsupportedMediaType():
            response = problem(415, "content-coding", "the body is compressed: send it without a Content-Encoding")
            response.headers["Accept-Encoding"] = "identity"  # RFC 9110, section 12.5.3
            return response
        case web.HTTPExpectationFailed():
            return problem(417, "expectation-failed", "the only expectation that is met here is 100-continue")
        case web.HTTPNotImplemented():
            return problem(501, "transfer-coding", "the only Transfer-Encoding that is taken here is chunked")
        case web.HTTPVersionNotSupported():
            return problem(505, "http-version", "the versions of HTTP that are spoken here are 1.1 and 1.0")
        case web.HTTPBadRequest():
            return malformed()
        case _:
            return problem(error.status, "http", error.reason)


FALLBACK = Fallback(malformed=malformed, internal=internal, for_http=for_http, note=note)


def problem(
    status: int, kind: str, detail: str, faults: Sequence[str] | None = None, **members: Sequence[str]
) -> web.Response:
    """A problem document (RFC 9457); *members* are its extensions."""
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
    """*data* as one line of JSON, with its end: whoever asks by hand has the prompt on the next one."""
    return web.Response(text=json.dumps(data) + "\n", status=status, content_type=content_type)
