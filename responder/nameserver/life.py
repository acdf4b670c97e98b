"""
The life of a nameserver process: first a spare, which loads and follows the feed, then one that answers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from responder.dns.exchange import Exchange
from responder.dns.zone import Zones
from responder.feed import Feeds, follow
from responder.nameserver import tcp, udp
from responder.nameserver.server import Nameserver
from responder.process.child import Lifeline
from responder.process.lifeline import Word
from responder.process.prctl import set_name

COOKIE_REFRESH = 60.0
"""Seconds after which a remembered cookie is checked anew: a cookie in a reply is at most that old."""

DRAIN = 1.0
"""Seconds that clients over TCP get when other processes answer: for the query that they send, or for one more."""

SPARE, ANSWERING = "responder-spare", "responder-dns"
"""What the process is called, so that a list of processes shows which one does what."""

NameserverSockets = Mapping[str, Sequence[socket.socket]]
"""By purpose: "udp 1" and so on for each place, "tcp" for all."""


async def serve(
    server: Nameserver, sockets: NameserverSockets, feeds: Feeds, lifeline: Lifeline, stop: asyncio.Event
) -> None:
    """
    Load, follow the feed, and report that we are ready. Once the supervisor gives us a place, answer on its *sockets*,
    until *stop* is set.

    All *sockets* are bound, listening, non-blocking. Packets wait in the kernel while no process reads them.
    """
    orders, loaded, listeners = _Orders(lifeline, feeds), asyncio.Event(), list[asyncio.Server]()

    def install(zones: Zones) -> None:
        server.install(zones)
        loaded.set()

    following = asyncio.create_task(
        follow(feeds, install, server.rekey, server.relay, server.exchange.take_counts, server.vouch)
    )
    answering = asyncio.create_task(_answer(server, sockets, orders, loaded, listeners))
    ends = [asyncio.create_task(stop.wait()), asyncio.create_task(_retire(server, orders, listeners))]
    tasks = [following, answering, asyncio.create_task(orders.listen()), *ends]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        task.result()  # only the last two ever end: that another one did is a fault, and belongs in the log


async def _retire(server: Nameserver, orders: _Orders, listeners: Sequence[asyncio.Server]) -> None:
    """
    Once others answer at our place, too, take no more connections, and give those that there are some time. UDP goes on
    until the end: the process that reads a packet answers it.
    """
    await orders.retired.wait()
    for listener in listeners:
        listener.close()
    await server.connections.drain(DRAIN)


async def _answer(
    server: Nameserver,
    sockets: NameserverSockets,
    orders: _Orders,
    loaded: asyncio.Event,
    listeners: list[asyncio.Server],
) -> None:
    """Be a spare, then answer until cancelled."""
    await loaded.wait()  # before that there is nothing to answer from, not even REFUSED
    set_name(SPARE)
    orders.lifeline.ready()
    place = await orders.place
    loop, connections = asyncio.get_running_loop(), server.connections
    for sock in sockets[f"udp {place}"]:
        udp.watch(server.reply, server.pass_on, sock)
    listeners += [await tcp.listen(server.reply, server.pass_on, sock, connections) for sock in sockets["tcp"]]
    set_name(ANSWERING)
    orders.lifeline.ready(place)
    try:
        await _refresh_cookies(server.exchange)
    finally:
        for sock in sockets[f"udp {place}"]:
            loop.remove_reader(sock)
        for listener in listeners:
            listener.close()
        connections.close()


async def _refresh_cookies(exchange: Exchange) -> None:
    while True:
        await asyncio.sleep(COOKIE_REFRESH)
        exchange.forget_cookies()


@dataclass(slots=True)
class _Orders:
    """What the supervisor sends us: feeds, our place, and that others have it now."""

    lifeline: Lifeline
    feeds: Feeds
    place: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    retired: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        """Take it as it comes, for ever."""
        while True:
            message = await self.lifeline.hear()
            if message.word is Word.FEED:
                self.feeds.put(socket.socket(fileno=message.descriptor))
            elif message.word is Word.SERVE:
                self.place.set_result(message.number)
            elif message.word is Word.RETIRE:
                self.retired.set()
