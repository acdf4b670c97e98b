"""
The nameserver's end of the feed: it keeps zones as the control process publishes them.

Theory of operation
-------------------
A nameserver has no database. It learns everything through the feed, in numbered frames, and takes them one after
another. An arrow to the right is a message to the control process:

    {"loaded": ..., "sandbox": ...}  -->   the first message: whether this nameserver has zones already
    Begin, Change ... Change, End    <--   a snapshot: the static records, then all names, then "serve this"
    Change                           <--   one committed change, in pieces of at most 100 names
    Keys, Vouch, PacketReply, Check  <--   keys of DNS cookies; how long values are current; a reply; nothing
    {"ack": number}                  -->   after each frame, when it has taken effect

*Snapshots.* `Begin` starts new, empty zones beside those that are served. The changes up to `End` are applied to the
new zones, and `End` replaces the old ones in one step. So queries are answered from the old zones while a snapshot is
under way, and never from half a snapshot. If the connection breaks in between, the new zones are dropped.

*Changes.* A change has the new state of each name, and not a step. So applying one twice does no harm. A frame is
acknowledged after it was applied: from then on, no query gets an answer from before the change.

*Small steps.* The process has one thread, which answers no query while it applies a change. So a change is applied 50
names at a time, and queries are answered in between. Old zones are freed in the same way.

*Catching up.* When the control process dies, the nameserver keeps its zones and continues to answer. The supervisor
hands it a socket to the next control process (`Feeds`). `follow` reports on it that there are zones already, and gets a
snapshot, which has everything that the nameserver missed. Packets without a reply are sent again (`relay`).

*Faults.* Frames come from the control process and are trusted: an invalid one ends the nameserver. Steps that DNS does
not depend on (counts, replies to packets) may fail: the fault is logged, and the next frame is taken.
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
    PacketReply,
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
"""Names of a change that are applied between two batches of queries: this takes 0.1 ms."""

FREED_AT_ONCE = 500
"""Names of old zones that are freed between two batches of queries: this takes 0.3 ms. A million would take 0.1 s."""

AWAY_REPORTED = 5.0
"""Seconds without a control process until that is logged: a restart, or the end of the service, takes less."""

FAULT_INTERVAL = 60.0
"""Seconds between two log lines about faults of one kind: checks come every few seconds."""

_faults = Seldom(FAULT_INTERVAL)
_log = structlog.get_logger("feed")


class Feeds:
    """Where a nameserver gets its feeds from: the supervisor hands over one for each control process that it starts."""

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        """*sandbox* is what the nameserver has given up; it is reported to the control process."""
        self.sandbox = sandbox or Sandbox()
        self._newest: asyncio.Queue[socket.socket] = asyncio.Queue(1)

    def put(self, feed: socket.socket) -> None:
        """Follow *feed*, a connected Unix stream socket, next. An earlier one that still waits is closed."""
        if self._newest.full():
            self._newest.get_nowait().close()
        self._newest.put_nowait(feed)

    async def next(self) -> socket.socket:
        """Wait for the newest feed that was not followed yet."""
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
    Keep zones as the control process publishes them, for ever.

    *install* is called with each complete snapshot; later changes are applied to that same object. *rekey* is called
    with the keys of DNS cookies, and *vouch* with the time until which values and grants are current. Packets from
    *relay*, and from time to time the result of *counts*, are sent to the control process. Nothing changes while the
    control process is away.
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
    """Wait for the next feed, and log it if that takes long."""
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
    """Apply each frame and acknowledge it. Yields the new zones when a snapshot is complete."""
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
            case PacketReply():
                _attempt(relay.settle, frame.packet, frame.octets)
            case Vouch():
                vouch(frame.until)
            case Check():
                _attempt(_report, writer, counts)
        writer.write(pack({"ack": number}))
        await asyncio.sleep(0)  # queries are answered between the frames of a long snapshot


def _attempt(step: Callable[..., None], *arguments: object) -> None:
    """Run a step that DNS does not depend on. If it fails, that is logged, and answers and changes go on."""
    try:
        step(*arguments)
    except Exception as fault:  # noqa: BLE001  # the step is not essential
        if (unreported := _faults.due(type(fault).__name__)) is not None:
            _log.error("a step that DNS can do without failed", step=step.__name__, more=unreported, exc_info=fault)


def _report(writer: asyncio.StreamWriter, counts: Callable[[], Sequence[Count]]) -> None:
    """Send the result of *counts*, in several messages if there are many zones."""
    taken = counts()
    for at in range(0, len(taken), MAX_COUNTS):
        writer.write(pack({"counts": taken[at : at + MAX_COUNTS]}))


async def _apply(change: Change, zones: Zones) -> None:
    """Apply *change* in small pieces, so that queries are answered in between."""
    first, *others = change.pieces(APPLIED_AT_ONCE)
    zones.apply(first)
    for piece in others:
        await asyncio.sleep(0)
        zones.apply(piece)


def _free(zones: Zones) -> None:
    """Free zones that are no longer served, some names now and the rest later."""
    if zones.discard(FREED_AT_ONCE):
        asyncio.get_running_loop().call_soon(_free, zones)
