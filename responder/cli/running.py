"""Whether the service is running: commands ask its admin listeners, and never through a proxy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

from responder.config import Endpoint

DEADLINE = 4.0
"""Seconds for a response: each part of the readiness check takes two at most."""


def ask(admin: Endpoint, path: str) -> tuple[int, dict[str, object]]:
    """The status and the JSON of the response to `GET path`. Raises `OSError`, `HTTPException` or `ValueError`."""
    connection = HTTPConnection(admin.host, admin.port, timeout=DEADLINE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = json.load(response)
    finally:
        connection.close()
    if not isinstance(body, dict):
        raise ValueError("the response is not a JSON object")
    return response.status, body


def is_running(listen: Sequence[Endpoint]) -> bool:
    """
    Whether a service with one of these admin listeners is running. A listener that accepts a connection and does not
    respond counts as one: its control process may be restarting.
    """
    return any(_is_one(endpoint.reachable) for endpoint in listen)


def readiness(listen: Sequence[Endpoint]) -> dict[str, str]:
    """The checks of the running service, each "ok" or what is wrong; empty if it does not respond."""
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
