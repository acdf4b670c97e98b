"""
The PROXY protocol, versions 1 and 2: a header at the start of a connection, in which a proxy reports the address of its
client (HAProxy's proxy-protocol.txt, section 2).

The receiver never guesses whether there is a header: the listener decides which connections have to begin with one.
"""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from responder.addresses import UNKNOWN, parse_address

HEADER_DEADLINE = 5.0
"""Seconds for the header: time for a lost packet to be sent again (section 2: at least 3)."""

WITHOUT_CLIENT = b"PROXY UNKNOWN\r\n"
"""The header of a proxy that connects for itself, as its health checks do (section 2.1)."""

MAX_HEADER = 4096
"""Octets of a header. The addresses need at most 232; proxies add a few hundred about TLS or a cloud's network."""

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_PREFIX = b"PROXY "
_MAX_LINE = 107
"""Octets of a header of version 1, with its end (section 2.1)."""

_LINE = re.compile(rb"PROXY (?:UNKNOWN(?: .*)?|(TCP4|TCP6) ([^\s%]+) ([^\s%]+) (\d{1,5}) (\d{1,5}))\r\n", re.DOTALL)
_FIXED = 16
"""Octets of a header of version 2 before its addresses."""
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21


class MalformedHeader(Exception):
    """A connection that has to begin with a header of the PROXY protocol begins with something else."""


async def receive_header(connection: socket.socket, peer: str) -> str:
    """
    The address of the client for which *peer* connects, or `UNKNOWN`. Nothing behind the header is read.

    Raises `MalformedHeader`; `OSError` if the connection ends, or the time is over.
    """
    octets = b""
    connection.setblocking(False)
    async with asyncio.timeout(HEADER_DEADLINE):
        while (length := _length(octets)) is None or len(octets) < length:
            seen = await _peek(connection, MAX_HEADER - len(octets))
            if not seen:
                raise ConnectionResetError("the connection ended before its header")
            length = _length(octets + seen)
            # Without its length, all of it is the header's.
            octets += connection.recv(len(seen) if length is None else min(len(seen), length - len(octets)))
    return parse_header(octets, peer)


def parse_header(octets: bytes, peer: str) -> str:
    """As `receive_header`, for a header that is there as a whole. Raises `MalformedHeader`."""
    return _parse_binary(octets, peer) if octets.startswith(_SIGNATURE) else _parse_line(octets)


def _length(octets: bytes) -> int | None:
    """How long the header is that begins with *octets*; None if that is not known yet. Raises `MalformedHeader`."""
    if octets[: len(_SIGNATURE)] == _SIGNATURE[: len(octets)]:
        if len(octets) < _FIXED:
            return None
        length = _FIXED + int.from_bytes(octets[14:16])
        if length > MAX_HEADER:
            raise MalformedHeader(f"a header of {length} octets: at most {MAX_HEADER} are taken")
        return length
    if octets[: len(_PREFIX)] != _PREFIX[: len(octets)]:
        raise MalformedHeader("no header")
    end = octets.find(b"\r\n", 0, _MAX_LINE)
    if end < 0 and len(octets) >= _MAX_LINE:
        raise MalformedHeader("a header of version 1 that does not end")
    return None if end < 0 else end + 2


def _parse_line(octets: bytes) -> str:
    """Version 1 (section 2.1)."""
    match = _LINE.fullmatch(octets)
    if match is None:
        raise MalformedHeader("a malformed header of version 1")
    family, source, destination, *ports = match.groups()
    if family is None:
        return UNKNOWN
    parse = IPv4Address if family == b"TCP4" else IPv6Address
    try:
        address, _ = parse(source.decode("ascii")), parse(destination.decode("ascii"))
    except ValueError:
        raise MalformedHeader("an address of version 1 that is not valid") from None
    if any(int(port) > 0xFFFF for port in ports):
        raise MalformedHeader("a port of version 1 that is not valid")
    return str(parse_address(str(address)))


def _parse_binary(octets: bytes, peer: str) -> str:
    """Version 2 (section 2.2). What follows the addresses is not looked at."""
    command, family, rest = octets[12], octets[13], octets[_FIXED:]
    if command == _LOCAL:
        return peer
    if command != _PROXY:
        raise MalformedHeader("a version or command that does not exist")
    if family == _TCP4 and len(rest) >= 12:
        return str(IPv4Address(rest[:4]))
    if family == _TCP6 and len(rest) >= 36:
        return str(parse_address(str(IPv6Address(rest[:16]))))
    if family in (_TCP4, _TCP6):
        raise MalformedHeader("a header of version 2 without its addresses")
    return UNKNOWN


async def _peek(connection: socket.socket, most: int) -> bytes:
    """What has come and is not read yet, once there is something; nothing at the end."""
    while True:
        with suppress(BlockingIOError):
            return connection.recv(most, socket.MSG_PEEK)
        await _readable(connection)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not waiting.done():
            waiting.set_result(None)

    loop.add_reader(connection, note)
    try:
        await waiting
    finally:
        loop.remove_reader(connection)
