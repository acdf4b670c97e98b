"""
A nameserver process: packets from its sockets through `exchange` and back, and zones from the feed.

It faces the internet, so it is given sockets and the path of the feed, and has nothing else: no database, no tokens,
no configuration, no environment. Between a packet and its answer nothing is awaited.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from responder.dns.cookies import Cookies
from responder.dns.exchange import SIGNATURE, Exchange
from responder.dns.wire import HEADER, TCP_CEILING, Rcode, Transport, header_only
from responder.dns.zone import Zones
from responder.feed import Deliver, Packet, Relay, follow
from responder.logs import Seldom
from responder.nameserver import tcp, udp

COOKIE_REFRESH = 60.0
"""Seconds after which a remembered cookie is checked anew: a cookie in a reply is at most that old."""

FAULT_INTERVAL = 10.0
"""Seconds between two reports of faults of one kind. Whoever finds a packet that brings one out sends it again."""

MAX_DRAFT = TCP_CEILING - SIGNATURE
"""Octets of a reply that can still be signed."""

_OLDEST = len(gc.get_threshold()) - 1
"""The generation that is only collected together with all others."""

_log = structlog.get_logger("nameserver")


@dataclass(slots=True)
class Nameserver:
    """The exchange that answers, and the edge that keeps its faults from costing more than one packet."""

    exchange: Exchange = field(default_factory=Exchange)
    relay: Relay = field(default_factory=Relay)
    _faults: Seldom = field(default_factory=lambda: Seldom(FAULT_INTERVAL))

    def install(self, zones: Zones) -> None:
        """Serve *zones* from the next packet on."""
        self.exchange.serve(zones)

    def rekey(self, keys: tuple[bytes, ...]) -> None:
        """Make and check cookies with *keys*; none: give no cookies."""
        self.exchange.cookies = Cookies(keys, time.time) if keys else None
        self.exchange.forget_cookies()

    def reply(self, packet: bytes, transport: Transport, client: str) -> bytes | None:
        """Never raises: a packet that brings out a fault of ours gets SERVFAIL, and costs nobody else an answer."""
        try:
            return self.exchange.respond(packet, transport, client)
        except Exception as fault:  # noqa: BLE001  # the edge of a packet
            self._report(fault, packet)
            is_query = len(packet) >= HEADER and not packet[2] & 0x80
            return self._fail(packet) if is_query else None

    def pass_on(self, packet: bytes, transport: Transport, client: str, deliver: Deliver) -> None:
        """Have the control process answer *packet*, for which `reply` was `ELSEWHERE`. Never raises either."""
        try:
            draft = self.exchange.draft(packet, transport, client)
            if len(draft.octets) <= MAX_DRAFT:

                def count_and_deliver(reply: bytes) -> None:
                    self.exchange.count(reply, draft)
                    deliver(reply)

                self.relay.pass_on(Packet(packet, transport, client, draft.octets), count_and_deliver)
                return
        except Exception as fault:  # noqa: BLE001  # the edge of a packet
            self._report(fault, packet)
        deliver(self._fail(packet))

    def _fail(self, packet: bytes) -> bytes:
        reply = header_only(packet, Rcode.SERVFAIL)
        self.exchange.count(reply)
        return reply

    def _report(self, fault: Exception, packet: bytes) -> None:
        if (unreported := self._faults.due(type(fault).__name__)) is not None:
            _log.error("a packet brought out a fault", packet=packet[:512].hex(), more=unreported, exc_info=fault)


def keep_collections_short() -> None:
    """
    Have the garbage collector walk everything once and never again: what it finds alive is left to reference counts.

    Tables and answers live as long as the process; to walk 300,000 answers takes 0.1 s, in which nobody gets one.
    """

    def spare(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == _OLDEST:
            gc.freeze()

    gc.callbacks.append(spare)


async def serve(
    server: Nameserver,
    sockets: dict[str, list[socket.socket]],
    feed: str,
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    """
    Answer on *sockets* ("udp" and "tcp": bound, listening, non-blocking) until *stop* is set; call *ready* when that
    begins.

    Nothing is read from the sockets before the first snapshot is here: what comes in until then waits in the kernel.
    """
    loaded = asyncio.Event()

    def install(zones: Zones) -> None:
        server.install(zones)
        loaded.set()

    following = asyncio.create_task(follow(feed, install, server.rekey, server.relay, server.exchange.take_counts))
    stopping = asyncio.create_task(stop.wait())
    loading = asyncio.create_task(loaded.wait())
    await asyncio.wait([following, stopping, loading], return_when=asyncio.FIRST_COMPLETED)
    if loaded.is_set():  # if not, there is nothing to answer from, not even REFUSED
        await _answer(server, sockets, ready, [following, stopping])
    for task in (following, stopping, loading):
        task.cancel()
    if following.done() and not following.cancelled():
        following.result()  # it runs for ever: that it ended is a fault, and the traceback belongs in the log


async def _answer(
    server: Nameserver,
    sockets: dict[str, list[socket.socket]],
    ready: Callable[[], None],
    tasks: Iterable[asyncio.Task[Any]],
) -> None:
    """Answer until one of *tasks* is done."""
    loop, connections = asyncio.get_running_loop(), tcp.Connections()
    for sock in sockets["udp"]:
        udp.watch(server.reply, server.pass_on, sock)
    listeners = [await tcp.listen(server.reply, server.pass_on, sock, connections) for sock in sockets["tcp"]]
    refreshing = asyncio.create_task(_refresh_cookies(server.exchange))
    ready()
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    refreshing.cancel()
    for sock in sockets["udp"]:
        loop.remove_reader(sock)
    for listener in listeners:
        listener.close()
    connections.close()


async def _refresh_cookies(exchange: Exchange) -> None:
    while True:
        await asyncio.sleep(COOKIE_REFRESH)
        exchange.forget_cookies()
