"""The admin listener: whether the process lives, and whether the whole service is ready to do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
from aiohttp import web

from responder.api.problems import answer_with_problems
from responder.errors import ResponderError, Unavailable
from responder.names import Name
from responder.store import Store

PROBE_DEADLINE = 2.0
"""Seconds the readiness check gives the nameserver and the store."""


def build_admin(store: Store, apex: Name, nameserver: tuple[str, int]) -> web.Application:
    """
    The application on the admin listener.

    *nameserver* is where our own nameserver answers for *apex*: the readiness check asks it as a resolver would.
    """

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        names = ("store", "dns_udp", "dns_tcp")
        probes = (
            store.ping(),
            _ask(dns.asyncquery.udp, apex, nameserver),
            _ask(dns.asyncquery.tcp, apex, nameserver),
        )
        results = await asyncio.gather(*map(_probe, probes))
        checks = dict(zip(names, results, strict=True))
        return web.json_response(checks, status=200 if set(results) == {"ok"} else 503)

    app = web.Application(middlewares=[answer_with_problems])
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    return app


async def _probe(check: Awaitable[None]) -> str:
    """How a check went, in words that give nothing away."""
    try:
        async with asyncio.timeout(PROBE_DEADLINE):
            await check
    except (ResponderError, OSError, EOFError, TimeoutError, dns.exception.DNSException) as error:
        return f"failed: {error}" if isinstance(error, ResponderError) else f"failed: {type(error).__name__}"
    return "ok"


async def _ask(query: Any, apex: Name, nameserver: tuple[str, int]) -> None:
    host, port = nameserver
    reply = await query(dns.message.make_query(apex.fqdn, "SOA"), host, port=port, timeout=PROBE_DEADLINE)
    if reply.rcode() != dns.rcode.NOERROR or not reply.flags & dns.flags.AA:
        raise Unavailable("the nameserver does not answer for the zone")
