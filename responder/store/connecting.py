"""
Connecting to PostgreSQL: the servers of a URL are tried one after the other, each with its own short deadline.

asyncpg has one deadline for the whole list of servers, so a first server that hangs uses all of it.
"""

from __future__ import annotations

from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import URL

HOST_TIMEOUT = 1.5
"""Seconds for each of several servers: a primary answers in milliseconds, and presents wait while it is searched."""

_NEXT = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""After one of these exceptions, the next server is tried."""


class NoPrimary(ConnectionError):
    """A server answers, and does not take changes."""


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
        Return a new connection.

        Raises `NoPrimary` if a server answers, but none of them is the primary; otherwise the exception of asyncpg for
        the last server.

        SQLAlchemy passes arguments from the URL, which this object has already.
        """
        faults: list[Exception] = []
        for place in self._places:
            try:
                connection = await asyncpg.connect(**{**self._options, **place, "timeout": self._timeout})
            except _NEXT as fault:
                faults.append(fault)
            else:
                self._prefer(place)
                return connection
        if any(isinstance(fault, asyncpg.TargetServerAttributeNotMatched) for fault in faults):
            raise NoPrimary("no server takes changes")
        raise faults[-1]

    def _prefer(self, place: dict[str, Any]) -> None:
        self._places = [place, *(each for each in self._places if each is not place)]


def _places(options: dict[str, Any]) -> list[dict[str, Any]]:
    """Remove host and port from *options*, and return them for each server as arguments of `asyncpg.connect`."""
    hosts, ports = options.pop("host", None), options.pop("port", None)
    if not isinstance(hosts, list):
        return [{key: value for key, value in (("host", hosts), ("port", ports)) if value is not None}]
    each = ports if isinstance(ports, list) else [ports or 5432] * len(hosts)
    return [{"host": host, "port": port} for host, port in zip(hosts, each, strict=True)]
