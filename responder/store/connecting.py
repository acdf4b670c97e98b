"""
How connections to PostgreSQL are made: one server after the other, each with a short deadline of its own.

asyncpg gives its time to the whole list of servers, so it never comes to the second behind one that hangs.
"""

from __future__ import annotations

from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import URL

HOST_TIMEOUT = 1.5
"""Seconds for one server of several: a primary answers in milliseconds, and presents wait for it after a failover."""

_NEXT = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError)
"""After these faults of one server, the next one is tried."""


class Connector:
    """
    Makes connections to the servers that a URL names; *options* are arguments of `asyncpg.connect`.

    The server that answered last is tried first.
    """

    def __init__(self, url: URL, options: dict[str, Any], *, timeout: float) -> None:
        _, found = url.get_dialect()().create_connect_args(url)
        self._options: dict[str, Any] = {**found, **options}
        self._options.pop("prepared_statement_cache_size", None)  # SQLAlchemy's own
        self._places = _places(self._options)
        self._timeout = timeout if len(self._places) == 1 else HOST_TIMEOUT

    async def connect(self, **_: Any) -> asyncpg.Connection:
        """
        A new connection. Raises what asyncpg raises for the last server that was tried.

        SQLAlchemy passes what it has read from the URL, which is here already.
        """
        for place in tuple(self._places):
            try:
                connection = await asyncpg.connect(**{**self._options, **place, "timeout": self._timeout})
            except _NEXT:
                if place is self._last:
                    raise
            else:
                self._prefer(place)
                return connection
        raise AssertionError("there is always a last server")

    @property
    def _last(self) -> dict[str, Any]:
        return self._places[-1]

    def _prefer(self, place: dict[str, Any]) -> None:
        self._places = [place, *(each for each in self._places if each is not place)]


def _places(options: dict[str, Any]) -> list[dict[str, Any]]:
    """Where each server is, as arguments of `asyncpg.connect`; they are taken out of *options*."""
    hosts, ports = options.pop("host", None), options.pop("port", None)
    if not isinstance(hosts, list):
        return [{key: value for key, value in (("host", hosts), ("port", ports)) if value is not None}]
    each = ports if isinstance(ports, list) else [ports or 5432] * len(hosts)
    return [{"host": host, "port": port} for host, port in zip(hosts, each, strict=True)]
