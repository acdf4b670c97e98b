"""
Which address a request comes from: that of the connection, or the one that a trusted proxy reports in a header.

Any client can write such a header, and proxies add to what they get. So the list in it is read from its end, where the
nearest proxy wrote: as long as an address is that of a trusted proxy, the one before it counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from responder.addresses import UNKNOWN, parse_address
from responder.logs import REMINDER, Seldom
from responder.tokens.network import Network, is_within

MAX_SHOWN = 64
"""Characters of an unreadable item that are logged."""

_PORT = r":(\d{1,5}|_[\w.-]{1,64})"
_WITH_PORT = re.compile(rf"\[(?P<v6>[^\[\]]+)\]({_PORT})?|(?P<v4>[0-9.]+){_PORT}", re.ASCII)
"""An address in brackets, or with a port, which Azure always writes; RFC 7239 (section 6) has names for ports, too."""

_STRING = r'"(?:[^"\\]|\\.)*"'
"""A quoted string, in which separators separate nothing (RFC 9110, section 5.6.4)."""

_QUOTED = re.compile(_STRING)
_PAIR = re.compile(rf'\s*(?P<name>[^\s"=,;\\]+)=(?P<value>{_STRING}|[^\s",;\\]*)\s*')
_PARTS = {separator: re.compile(rf'(?:"(?:[^"\\]|\\.?)*(?:"|\Z)|[^"{separator}])+') for separator in ",;"}
"""What is between separators; a quote that nothing closes takes all that follows."""

_log = structlog.get_logger("api")


class _Unreadable(ValueError):
    """The trusted *proxy* wrote *item*, in which there is no address."""

    def __init__(self, proxy: str, item: str) -> None:
        super().__init__(item)
        self.proxy = proxy
        self.item = item


def trust_proxies(proxies: Sequence[Network], header: str) -> Middleware:
    """A middleware that gives each request the address of its client as `remote`; *proxies* report it in *header*."""
    seldom = Seldom(REMINDER)
    split = _elements if header.lower() == "forwarded" else _addresses

    @web.middleware
    async def with_client(request: web.Request, handler: Handler) -> web.StreamResponse:
        if proxies and request.remote:
            try:
                items = [item for line in request.headers.getall(header, ()) for item in split(line)]
                client = _client(request.remote, items, proxies)
            except _Unreadable as fault:
                client = UNKNOWN
                if (more := seldom.due(fault.proxy)) is not None:
                    _report(fault, header, more)
            if client != request.remote:
                request = request.clone(remote=client)
        return await handler(request)

    return with_client


def _addresses(line: str) -> list[str]:
    """The items of a plain list, which has no quoted strings: a quote in it must not hide what a proxy adds."""
    return [item for each in line.split(",") if (item := each.strip())]


def _elements(line: str) -> list[str]:
    """The items of a header of RFC 7239 (section 4)."""
    return [item for each in _PARTS[","].findall(line) if (item := each.strip())]


def _client(peer: str, items: list[str], proxies: Sequence[Network]) -> str:
    """The last address that is not a trusted proxy's. Raises `_Unreadable` if it cannot be read."""
    client = peer
    while items and is_within(client, proxies):
        item = items.pop()
        try:
            client = str(parse_address(_node(item)))
        except ValueError:
            raise _Unreadable(client, item) from None
    return client


def _node(item: str) -> str:
    """
    The address in an item of the header: bare, in quotes, with a port, or as `for=` of RFC 7239 (section 4).

    Raises `ValueError` if the item is malformed.
    """
    node = _for(item) if "=" in item else item
    if _QUOTED.fullmatch(node):
        node = re.sub(r"\\(.)", r"\1", node[1:-1])
    with_port = _WITH_PORT.fullmatch(node)
    return (with_port["v6"] or with_port["v4"]) if with_port else node


def _for(element: str) -> str:
    """The only `for=` of *element*. Raises `ValueError` if there is another number of them, or anything but pairs."""
    pairs = [_PAIR.fullmatch(part) for part in _PARTS[";"].findall(element) if part.strip()]
    if None in pairs:
        raise ValueError("not a list of pairs")
    (node,) = (pair["value"] for pair in pairs if pair and pair["name"].lower() == "for")
    return node


def _report(fault: _Unreadable, header: str, more: int) -> None:
    _log.warning(
        "a trusted proxy does not report the address of its client: tokens that are limited to networks are refused",
        proxy=fault.proxy,
        header=header,
        item=fault.item[:MAX_SHOWN],
        more=more,
    )
