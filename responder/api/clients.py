"""
Which address a request comes from: that of the connection, or what a proxy that is trusted says.

Headers such as X-Forwarded-For are anybody's to write, and proxies add to what they get. So the list in it is read
from its end, where the nearest proxy wrote: as long as an address is a trusted proxy's, the one before it counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from responder.addresses import parse_address
from responder.tokens.network import Network


def believe(proxies: Sequence[Network]) -> Middleware:
    """A middleware that gives each request the address of its client as `remote`."""

    @web.middleware
    async def with_client(request: web.Request, handler: Handler) -> web.StreamResponse:
        if proxies and request.remote:
            client = _client(request.remote, request.headers.getall("X-Forwarded-For", ()), proxies)
            if client != request.remote:
                request = request.clone(remote=client)
        return await handler(request)

    return with_client


def _client(peer: str, headers: Sequence[str], proxies: Sequence[Network]) -> str:
    """The last address that is no trusted proxy's. What is no address ends the search: nobody vouches for it."""
    hops = [hop.strip() for header in headers for hop in header.split(",")]
    client = peer
    while hops and _is_trusted(client, proxies):
        try:
            client = str(parse_address(hops.pop()))
        except ValueError:
            break
    return client


def _is_trusted(client: str, proxies: Sequence[Network]) -> bool:
    address = parse_address(client)
    return any(address in network for network in proxies)
