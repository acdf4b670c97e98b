"""`python -m responder.nameserver`: the process that the supervisor starts."""

from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import ip_network
from typing import Any

import structlog

from responder import logs
from responder.dns.exchange import Exchange
from responder.dns.identity import Identity
from responder.dns.ratelimit import RateLimit
from responder.feed import Feeds
from responder.nameserver import tcp
from responder.nameserver.life import serve
from responder.nameserver.sandbox import enter
from responder.nameserver.server import Nameserver, keep_collections_short
from responder.process.child import Lifeline, run
from responder.process.orders import NameserverOrders
from responder.process.scheduling import take_realtime_priority, take_short_slices

_log = structlog.get_logger("nameserver")

SLICE = 0.0001
"""Seconds of a time slice, as short as there are; an answer takes a tenth of it. In a flood of presents the
process waits half as long for the control process as with an ordinary one: 15 ms of each second instead of 32."""

_OURSELVES = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
"""Never limited: the readiness check asks from here, and a flood in our own name must not make it fail."""


async def main(document: dict[str, Any], lifeline: Lifeline, stop: asyncio.Event) -> None:
    """Run the process by the orders in *document*."""
    orders = NameserverOrders(**document)
    logs.configure(**orders.log)
    _go_first(orders.dns)
    server = Nameserver(_exchange(orders.dns))
    feeds = Feeds(enter(orders.user))
    keep_collections_short()
    sockets = {
        purpose: [socket.socket(fileno=number) for number in numbers] for purpose, numbers in orders.sockets.items()
    }
    lifeline.prepared()
    await serve(server, sockets, feeds, lifeline, stop)


def _go_first(dns: dict[str, Any]) -> None:
    """A query takes next to no time, and somebody waits for it."""
    if dns["realtime"]:
        try:
            take_realtime_priority(dns["processes"])
        except OSError as error:
            _log.warning("no real-time priority (dns.realtime): going on without", reason=error.strerror or str(error))
        else:
            return
    take_short_slices(SLICE)


def _exchange(dns: dict[str, Any]) -> Exchange:
    limit = dns["rate_limit"]
    return Exchange(
        identity=Identity(nsid=dns["nsid"], version=dns["version"], hostname=dns["hostname"]),
        limit=RateLimit(
            per_second=limit["replies_per_second"],
            slip=limit["slip"],
            exempt=[*map(ip_network, limit["exempt"]), *_OURSELVES],
            clock=time.monotonic,
        )
        if limit["replies_per_second"]
        else None,
        tcp_idle=tcp.IDLE,
        updates=dns["update"]["enabled"],
    )


if __name__ == "__main__":
    run(main)
