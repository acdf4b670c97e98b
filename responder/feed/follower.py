"""
The nameserver's end of the feed: zones, kept as the control process publishes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from responder.dns.counts import MAX_COUNTS, Count
from responder.dns.zone import Change, Zones
from responder.feed.frames import MAX_FRAME, Begin, Check, End, Keys, Reply, pack, parse_frame, read
from responder.feed.relay import Relay
from responder.logs import Seldom

APPLIED_AT_ONCE = 50
"""Names of a change that are applied between two batches of queries: they take 0.1 ms."""

FREED_AT_ONCE = 500
"""Names of old zones that are freed between two batches of queries: they take 0.3 ms, a million 0.1 s."""

AWAY_REPORTED = 5.0
"""Seconds that the control process may be away, to start afresh or because all stops, before that is worth a line."""

RECONNECT_DELAY = 0.1
"""Seconds between a nameserver's attempts to find the control process again."""

FAULT_INTERVAL = 60.0
"""Seconds between two reports of faults of one kind: checks come every few seconds."""

_faults = Seldom(FAULT_INTERVAL)
_log = structlog.get_logger("feed")


async def follow(
    path: str,
    install: Callable[[Zones], None],
    rekey: Callable[[tuple[bytes, ...]], None],
    relay: Relay | None = None,
    counts: Callable[[], Sequence[Count]] = tuple,
) -> None:
    """
    The nameserver's end: keep zones as the control process publishes them, for ever.

    *install* is called with each complete snapshot; later changes are applied to that very object. *rekey* is called
    with the keys of DNS cookies; what *relay* passes on goes the same way back, and so does what *counts* gives, now
    and then. While the control process is away everything stays as it is.
    """
    relay = relay or Relay()
    serving: Zones | None = None
    lost_at: float | None = None
    loop = asyncio.get_running_loop()
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError:
            if lost_at is not None and loop.time() - lost_at > AWAY_REPORTED:
                lost_at = None
                _log.warning("control process is away; answering from memory")
            await asyncio.sleep(RECONNECT_DELAY)
            continue
        try:
            writer.write(pack({"serving": serving is not None}))
            relay.attach(writer)
            async for zones in _receive(reader, writer, serving, rekey, relay, counts):
                old, serving = serving, zones
                install(zones)
                if old is not None and old is not zones:
                    _free(old)
        except (asyncio.IncompleteReadError, ConnectionError):
            lost_at = loop.time()
        finally:
            relay.detach()
            writer.transport.abort()
        await asyncio.sleep(RECONNECT_DELAY)


async def _receive(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    serving: Zones | None,
    rekey: Callable[[tuple[bytes, ...]], None],
    relay: Relay,
    counts: Callable[[], Sequence[Count]],
) -> AsyncIterator[Zones]:
    """Apply frames as they come and acknowledge each. Yields the new zones whenever a snapshot is complete."""
    collecting = serving or Zones()
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
