"""
The control process's end of the feed: tells every nameserver what changed, and knows when all of them serve it.

A nameserver that does not acknowledge in time is killed (the supervisor starts it afresh), because a stale one is
worse than a missing one: resolvers retry elsewhere on silence, but take a stale answer as final.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

import structlog

from responder.dns.counts import Count, parse_counts
from responder.dns.zone import Change, Static
from responder.errors import ResponderError, Unserved
from responder.feed.frames import Begin, Check, Keys, Reply, parse_packet, read
from responder.feed.peer import Peer, hold, kill, let_go
from responder.feed.relay import Answer, fail
from responder.logs import Outage
from responder.names import Name

HELLO_DEADLINE = 3.0
"""Seconds that whoever connects may take to say what it is. A nameserver needs a millisecond."""

GATHER_DEADLINE = 5.0
"""Seconds a new control process waits for the nameservers that outlived the old one to come back to it."""

REPLACEMENT_DEADLINE = 5.0
"""Seconds that a change waits for a nameserver to answer at all, should the last one just have died."""

SNAPSHOT_RETRY = 0.5
"""Seconds until a snapshot that the store failed to give is asked for anew."""

MAX_MESSAGE = 144 << 10
"""Octets of a message from a nameserver, which faces the internet and may not be itself any more. The longest honest
one is a packet of `wire.MAX_SIGNED` octets with as long a draft as TCP can carry, in hexadecimal digits."""

SnapshotSource = Callable[[], AsyncGenerator[Change, None]]
"""Yields changes that together carry every zone's serial and names, all of one instant."""

_GONE = (asyncio.IncompleteReadError, ConnectionError)
_BROKEN = (*_GONE, ValueError, KeyError, TypeError, OverflowError)
"""What reading from a peer raises that is dead, or no nameserver of ours."""

_log = structlog.get_logger("feed")


class Publisher:
    """The control process's end: tells every nameserver, and knows when all of them serve a change."""

    def __init__(
        self,
        statics: Iterable[Static],
        snapshot: SnapshotSource,
        *,
        nameservers: int,
        outlived: Mapping[int, int] = MappingProxyType({}),
        lost: Callable[[], object] = lambda: None,
        counted: Callable[[Count], object] = lambda _: None,
    ) -> None:
        """
        *nameservers* are expected; those of *outlived* (process ids, each with its `hold`) answer already, from
        what they knew before.
        *lost* is called whenever one is gone for good, *counted* with whatever they have counted since the last time.
        """
        self._statics = tuple(statics)
        self._apexes = {str(static.apex) for static in self._statics}
        self._counted = counted
        self._snapshot = snapshot
        self._expected = nameservers
        self._lost = lost
        self._keys = Keys(())
        self._answer: Answer = fail
        self._peers: set[Peer] = set()
        self._outlived = dict(outlived)
        self._gathered = asyncio.Event()
        self._progress = asyncio.Event()  # set whenever a nameserver acknowledges something
        self._gathering: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._outage = Outage(_log, "no nameserver can have a snapshot", "nameservers can have snapshots again")

    async def start(self, listener: socket.socket) -> None:
        """Accept nameservers on *listener*, a Unix stream socket that the supervisor keeps open."""
        self._gather()
        # Not `start_unix_server`: from Python 3.13 on, that one removes the socket's file when it stops.
        self._server = await asyncio.start_server(self._attend, sock=listener)

    async def stop(self) -> None:
        """Let go of the nameservers; they go on answering."""
        if self._server is not None:
            self._server.close()
        if self._gathering is not None:
            self._gathering.cancel()
        for peer in self._peers:
            peer.leave()
        for pidfd in self._outlived.values():
            let_go(pidfd)

    def lag(self) -> tuple[int, int]:
        """How many nameservers answer queries, and the frames that the slowest of them has yet to acknowledge."""
        answering = [peer for peer in self._peers if peer.answers]
        return len(answering), max((peer.sent - peer.acknowledged for peer in answering), default=0)

    async def check(self) -> None:
        """Make an end of every nameserver that hangs: it is of no use to anybody, and resolvers wait for it in vain."""
        peers = [peer for peer in self._peers if peer.answers]
        for peer in peers:
            peer.send(Check())
        await asyncio.gather(*(peer.confirm() for peer in peers))

    async def publish(self, changes: Sequence[Change]) -> None:
        """Make *changes* live. Returns once every nameserver that answers queries answers from them."""
        if not changes:
            return
        await self._gathered.wait()
        peers = [peer for peer in self._peers if peer.send_changes(changes)]
        await asyncio.gather(*(peer.confirm() for peer in peers))
        await self._wait_for_one()

    async def reload(self) -> None:
        """Have every nameserver take a new snapshot. Returns once they all serve it."""
        peers, self._peers = self._peers, set()
        self._gather()
        for peer in peers:
            self._outlived[peer.pid] = hold(peer.pid)
            peer.leave()  # it comes back at once
        await self._gathered.wait()
        await asyncio.gather(*(peer.confirm() for peer in self._peers))
        await self._wait_for_one()

    async def _wait_for_one(self) -> None:
        """Raise `Unserved` if no nameserver comes to answer at all: a change that nobody serves is not live."""
        try:
            async with asyncio.timeout(REPLACEMENT_DEADLINE):
                while self._expected and not any(peer.answers for peer in self._peers):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise Unserved("it is stored, but no nameserver is answering just now: try again in a while") from None

    def rekey(self, keys: tuple[bytes, ...]) -> None:
        """Have every nameserver, those yet to come included, make and check cookies with *keys*."""
        self._keys = Keys(keys)
        for peer in self._peers:
            peer.send(self._keys)

    def answer_packets(self, answer: Answer) -> None:
        """From now on, *answer* what nameservers pass on."""
        self._answer = answer

    def _gather(self) -> None:
        """From now on, wait with changes until all nameservers are here, or have had the time to come."""
        self._gathered.clear()
        if self._gathering is not None:
            self._gathering.cancel()
        self._gathering = asyncio.get_running_loop().call_later(GATHER_DEADLINE, self._end_gathering)

    def _end_gathering(self) -> None:
        """Go on without those that did not come. What still runs of them hangs, and would wake up with old answers."""
        for pid, pidfd in self._outlived.items():
            _log.error("nameserver does not come back; killing it so that it starts afresh", pid=pid)
            kill(pid, pidfd)
            let_go(pidfd)
        self._outlived.clear()
        self._gathered.set()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, uid = _credentials(writer)
        if uid not in (os.getuid(), 0):
            _log.error("stranger on the feed socket turned away", pid=pid, uid=uid)
            writer.close()
            return
        try:
            async with asyncio.timeout(HELLO_DEADLINE):
                peer = Peer(pid, writer, serving=bool((await read(reader, MAX_MESSAGE))["serving"]))
        except (*_BROKEN, TimeoutError):
            writer.close()
            return
        self._peers.add(peer)
        let_go(self._outlived.pop(pid, -1))
        if len(self._peers) >= self._expected:
            self._gathered.set()
        loading = asyncio.create_task(self._load(peer))
        try:
            while True:
                self._take(peer, await read(reader, MAX_MESSAGE))
        except _BROKEN as fault:
            # It never hangs up by itself: it is dead, or as good as dead, and must not answer from old data.
            if not peer.leaving:
                if not isinstance(fault, _GONE):
                    _log.error("nameserver sends what makes no sense; killing it", pid=pid, reason=str(fault)[:100])
                peer.kill()
                self._lost()
        finally:
            self._peers.discard(peer)
            loading.cancel()
            peer.close()

    def _take(self, peer: Peer, message: dict[str, Any]) -> None:
        if "ack" in message:
            peer.acknowledge(int(message["ack"]))
            self._progress.set()
        elif "counts" in message:
            for count in parse_counts(message["counts"], self._apexes):
                self._counted(count)
        else:
            number, packet = parse_packet(message)
            self._answer(packet, lambda reply: peer.send_reply(Reply(number, reply)))

    async def _load(self, peer: Peer) -> None:
        """Send *peer* the snapshot, then what was committed meanwhile, and let it take part."""
        while True:
            try:
                peer.finish_loading(await self._send_snapshot(peer))
            except Exception as fault:  # noqa: BLE001  # the store failed us; what the nameserver holds is better than nothing
                if peer.writer.is_closing():  # no, it died itself, which `_attend` sees as well
                    return
                if isinstance(fault, ResponderError):
                    self._outage.goes_on(str(fault))
                else:
                    self._outage.goes_on(type(fault).__name__, exc_info=fault)
                await asyncio.sleep(SNAPSHOT_RETRY)
            else:
                self._outage.is_over()
                return

    async def _send_snapshot(self, peer: Peer) -> dict[Name, int]:
        """All but the end of it; returns the serial that each zone has in it."""
        if self._keys.keys:
            peer.send(self._keys)
        peer.send(Begin(self._statics))
        serials: dict[Name, int] = {}
        async with aclosing(self._snapshot()) as changes:
            async for change in changes:
                serials[change.apex] = change.serial
                peer.send(change)
                await peer.drain()
        return serials


def _credentials(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """Process and user id at the other end of a Unix socket, as the kernel vouches for them."""
    peer: socket.socket = writer.get_extra_info("socket")
    pid, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return pid, uid
