"""
UDP: what waits at a socket, answered in batches.

One callback of the event loop answers many datagrams; a callback for each would cost as much as the answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from responder.dns.exchange import ELSEWHERE, Elsewhere
from responder.dns.wire import Transport
from responder.feed import Deliver

MAX_QUERY = 4096
"""Octets read of a datagram. A real query with every option known fits into a tenth of it."""

BATCH = 32
"""Datagrams answered per readiness event, before the event loop may look at TCP and the feed: about 0.25 ms. A present
in a flood waits for two or three of them. Twice as many would cost 1 % less CPU time a query, half as many 4 % more."""

Respond = Callable[[bytes, Transport, str], bytes | Elsewhere | None]
"""Returns the reply to a packet that came by that transport from that address, None for silence, or `ELSEWHERE`."""

PassOn = Callable[[bytes, Transport, str, Deliver], None]
"""Has the control process answer the packet, and delivers the reply."""

IP_PKTINFO = 8  # linux/in.h; the socket module does not name it before Python 3.14
_ANCILLARY = socket.CMSG_SPACE(20)  # the larger of the two structures: an IPv6 address and an interface


def watch(respond: Respond, pass_on: PassOn, sock: socket.socket) -> None:
    """Answer the packets that come to *sock* by *respond* or *pass_on*, which never raise."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)  # a process that had it before may have been taken over
    if sock.getsockname()[0] not in ("0.0.0.0", "::"):
        loop.add_reader(sock, drain, respond, pass_on, sock)
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    loop.add_reader(sock, drain_any, respond, pass_on, sock)


def drain(respond: Respond, pass_on: PassOn, sock: socket.socket) -> None:
    """Answer what waits at *sock*, which is bound to one address, at most a batch."""
    receive, send, transport = sock.recvfrom, sock.sendto, Transport.UDP
    for _ in range(BATCH):
        try:
            packet, client = receive(MAX_QUERY + 1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # an ICMP error that an earlier reply came back with; the next datagram is waiting
            continue
        reply = respond(packet, transport, client[0])
        if reply is None or not client[1] or len(packet) > MAX_QUERY:
            continue
        if reply is ELSEWHERE:
            pass_on(packet, transport, client[0], partial(_deliver, sock, client, []))
            continue
        try:
            send(reply, client)
        except OSError:  # no buffer, no route: the resolver asks again
            continue


def drain_any(respond: Respond, pass_on: PassOn, sock: socket.socket) -> None:
    """
    As `drain`, for a socket that is bound to every address of the machine.

    The reply must leave from the address that was asked, or resolvers drop it; the kernel would choose by route.
    """
    for _ in range(BATCH):
        try:
            packet, ancillary, _, client = sock.recvmsg(MAX_QUERY + 1, _ANCILLARY)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            continue
        reply = respond(packet, Transport.UDP, client[0])
        if reply is None or not client[1] or len(packet) > MAX_QUERY:
            continue
        source = [_from_there(*item) for item in ancillary]
        if reply is ELSEWHERE:
            pass_on(packet, Transport.UDP, client[0], partial(_deliver, sock, client, source))
            continue
        try:
            sock.sendmsg([reply], source, 0, client)
        except OSError:
            continue


def _deliver(sock: socket.socket, client: Any, ancillary: list[tuple[int, int, bytes]], reply: bytes) -> None:
    """Send a *reply* that took its time. The socket may be closed by now."""
    with suppress(OSError):
        sock.sendmsg([reply], ancillary, 0, client)


def _from_there(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """The control message that sends from the address another one was received at."""
    if level == socket.IPPROTO_IP:  # struct in_pktinfo: interface (0, for the route to decide), source, nothing
        return level, kind, bytes(4) + data[4:8] + bytes(4)
    return level, kind, data
