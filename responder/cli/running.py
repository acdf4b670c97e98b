"""Whether the service runs: what a command asks of its admin listeners. No proxy is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

from responder.config import Endpoint

DEADLINE = 4.0
"""Seconds for an answer: the readiness check gives its own parts two."""


def ask(admin: Endpoint, path: str) -> tuple[int, dict[str, object]]:
    """The status of the answer to `GET path`, and its JSON. Raises `OSError`, `HTTPException` or `ValueError`."""
    connection = HTTPConnection(admin.host, admin.port, timeout=DEADLINE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = json.load(response)
    finally:
        connection.close()
    if not isinstance(body, dict):
        raise ValueError("the answer is no JSON object")
    return response.status, body


def is_running(listen: Sequence[Endpoint]) -> bool:
    """
    Whether a service runs that has one of these admin listeners. One that takes the connection and does not answer may
    be a service whose control process is away.
    """
    return any(_is_one(endpoint.reachable) for endpoint in listen)


def readiness(listen: Sequence[Endpoint]) -> dict[str, str]:
    """The checks of the service that runs, each "ok" or what is wrong; none if it does not answer."""
    for endpoint in listen:
        with suppress(OSError, HTTPException, ValueError):
            _, checks = ask(endpoint.reachable, "/readyz")
            return {name: str(result) for name, result in checks.items()}
    return {}


def _is_one(admin: Endpoint) -> bool:
    try:
        _, body = ask(admin, "/livez")
    except TimeoutError:
        return True
    except (OSError, HTTPException, ValueError):
        return False
    return body.get("alive") is True
