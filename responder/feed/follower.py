"""
The nameserver's end of the feed: zones, kept as the control process publishes them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from responder.dns.counts import MAX_COUNTS, Count
from responder.dns.zone import Change, Zones
from responder.feed.frames import (
    MAX_FRAME,
    Begin,
    Check,
    End,
    Hello,
    Keys,
    Reply,
    Sandbox,
    Vouch,
    pack,
    parse_frame,
    read,
    render_hello,
)
from responder.feed.relay import Relay
from responder.logs import Seldom

APPLIED_AT_ONCE = 50
"""Names of a change that are applied between two batches of queries: they take 0.1 ms."""

FREED_AT_ONCE = 500
"""Names of old zones that are freed between two batches of queries: they take 0.3 ms, a million 0.1 s."""

AWAY_REPORTED = 5.0
"""Seconds that the control process may be away, to start afresh or because all stops, before that is worth a line."""

FAULT_INTERVAL = 60.0
"""Seconds between two reports of faults of one kind: checks come every few seconds."""

_faults = Seldom(FAULT_INTERVAL)
_log = structlog.get_logger("feed")


class Feeds:
    """Where a nameserver gets its feed from: the supervisor hands over one for each life of the control process."""

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        """*sandbox* is what the nameserver gave up, for it to report."""
        self.sandbox = sandbox or Sandbox()
        self._newest: asyncio.Queue[socket.socket] = asyncio.Queue(1)

    def put(self, feed: socket.socket) -> None:
        """Have *feed*, a connected Unix stream socket, followed next. An earlier one that still waits leads nowhere."""
        if self._newest.full():
            self._newest.get_nowait().close()
        self._newest.put_nowait(feed)

    async def next(self) -> socket.socket:
        """The newest one that was not followed yet, now or when it is here."""
        return await self._newest.get()


async def follow(
    feeds: Feeds,
    install: Callable[[Zones], None],
    rekey: Callable[[tuple[bytes, ...]], None],
    relay: Relay | None = None,
    counts: Callable[[], Sequence[Count]] = tuple,
    vouch: Callable[[float], None] = lambda _: None,
) -> None:
    """
    The nameserver's end: keep zones as the control process publishes them, for ever.

    *install* is called with each complete snapshot; later changes are applied to that very object. *rekey* is called
    with the keys of DNS cookies, *vouch* with the time until which what is served is current; what *relay* passes on
    goes the same way back, and so does what *counts* gives, now and then. While the control process is away everything
    stays as it is.
    """
    relay = relay or Relay()
    loaded: Zones | None = None
    while True:
        feed = await _next(feeds)
        reader, writer = await asyncio.open_unix_connection(sock=feed)
        try:
            writer.write(render_hello(Hello(loaded=loaded is not None, sandbox=feeds.sandbox)))
            relay.attach(writer)
            async for zones in _receive(reader, writer, loaded, rekey, relay, counts, vouch):
                old, loaded = loaded, zones
                install(zones)
                if old is not None and old is not zones:
                    _free(old)
        except (asyncio.IncompleteReadError, ConnectionError):
            continue
        finally:
            relay.detach()
            writer.transport.abort()


async def _next(feeds: Feeds) -> socket.socket:
    """The next feed. That there is none for long is worth a line."""
    waiting = asyncio.ensure_future(feeds.next())
    try:
        done, _ = await asyncio.wait([waiting], timeout=AWAY_REPORTED)
        if not done:
            _log.warning("control process is away; answering from memory")
        return await waiting
    finally:
        waiting.cancel()


async def _receive(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    loaded: Zones | None,
    rekey: Callable[[tuple[bytes, ...]], None],
    relay: Relay,
    counts: Callable[[], Sequence[Count]],
    vouch: Callable[[float], None],
) -> AsyncIterator[Zones]:
    """Apply frames as they come and acknowledge each. Yields the new zones whenever a snapshot is complete."""
    collecting = loaded or Zones()
    while True:
        number, frame = parse_frame(await read(reader, MAX_FRAME))
        match frame:
            case Begin():
                collecting = Zones(frame.statics)
            case Change():
                await _apply(frame, collecting)
            case End():
                yield collecting
            case Keys():
                rekey(frame.keys)
            case Reply():
                _attempt(relay.settle, frame.packet, frame.octets)
            case Vouch():
                vouch(frame.until)
            case Check():
                _attempt(_report, writer, counts)
        writer.write(pack({"ack": number}))
        await asyncio.sleep(0)  # a long snapshot must let queries through between its frames


def _attempt(step: Callable[..., None], *arguments: object) -> None:
    """Do what DNS can do without: if it fails, that is logged, and neither answers nor changes stop for it."""
    try:
        step(*arguments)
    except Exception as fault:  # noqa: BLE001  # the edge of what is not essential
        if (unreported := _faults.due(type(fault).__name__)) is not None:
            _log.error("a step that DNS can do without failed", step=step.__name__, more=unreported, exc_info=fault)


def _report(writer: asyncio.StreamWriter, counts: Callable[[], Sequence[Count]]) -> None:
    """Send what *counts* gives; very many zones make very many."""
    taken = counts()
    for at in range(0, len(taken), MAX_COUNTS):
        writer.write(pack({"counts": taken[at : at + MAX_COUNTS]}))


async def _apply(change: Change, zones: Zones) -> None:
    """Let *change* take effect, and queries be answered all the while."""
    first, *others = change.pieces(APPLIED_AT_ONCE)
    zones.apply(first)
    for piece in others:
        await asyncio.sleep(0)
        zones.apply(piece)


def _free(zones: Zones) -> None:
    """Free what is not served any more, a little now and the rest later."""
    if zones.discard(FREED_AT_ONCE):
        asyncio.get_running_loop().call_soon(_free, zones)
