"""
The control process's end of the feed: tells every nameserver what changed, and knows when all of them serve it.

A nameserver that does not acknowledge in time is killed (the supervisor starts it afresh), because a stale one is
worse than a missing one: resolvers retry elsewhere on silence, but take a stale answer as final.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from responder.counts import Count, parse_counts
from responder.errors import Unserved
from responder.feed.frames import Begin, Check, End, Frame, Keys, Reply, parse_packet, read, render_frame
from responder.feed.relay import Answer, fail
from responder.names import Name
from responder.zone import Change, Static

ACK_DEADLINE = 3.0
"""Seconds a serving nameserver may take to acknowledge a frame. It needs a millisecond; cert-manager waits 30 s."""

GATHER_DEADLINE = 5.0
"""Seconds a new control process waits for the nameservers that outlived the old one to come back to it."""

REPLACEMENT_DEADLINE = 5.0
"""Seconds that a change waits for a nameserver to answer at all, should the last one just have died."""

SNAPSHOT_RETRY = 0.5
"""Seconds until a snapshot that the store failed to give is asked for anew."""

MAX_NAMES = 100
"""Names in one frame: to read it takes a nameserver 0.1 ms, in which it answers nobody."""

MAX_MESSAGE = 32 << 10
"""Octets of a message from a nameserver, which faces the internet and may not be itself any more. The longest honest
one is a packet of `wire.MAX_SIGNED` octets with as long a draft, in hexadecimal digits."""

SnapshotSource = Callable[[], AsyncGenerator[Change, None]]
"""Yields changes that together carry every zone's serial and names, all of one instant."""

_BROKEN = (asyncio.IncompleteReadError, ConnectionError, ValueError, KeyError, TypeError, OverflowError)
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
        outlived: Iterable[int] = (),
        lost: Callable[[], object] = lambda: None,
        counted: Callable[[Count], object] = lambda _: None,
    ) -> None:
        """
        *nameservers* are expected; those of *outlived* (process ids) answer already, from what they knew before.
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
        self._peers: set[_Peer] = set()
        self._outlived = {pid: _pidfd(pid) for pid in outlived}
        self._gathered = asyncio.Event()
        self._progress = asyncio.Event()  # set whenever a nameserver acknowledges something
        self._gathering: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None

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
            _close(pidfd)

    def lag(self) -> tuple[int, int]:
        """How many nameservers answer queries, and the frames that the slowest of them has yet to acknowledge."""
        answering = [peer for peer in self._peers if peer.answers]
        return len(answering), max((peer.sent - peer.acknowledged for peer in answering), default=0)

    async def check(self) -> None:
        """Make an end of every nameserver that hangs: it is of no use to anybody, and resolvers wait for it in vain."""
        peers = [peer for peer in self._peers if peer.answers]
        for peer in peers:
            peer.send(Check())
        await asyncio.gather(*(self._confirm(peer) for peer in peers))

    async def publish(self, changes: Sequence[Change]) -> None:
        """Make *changes* live. Returns once every nameserver that answers queries answers from them."""
        if not changes:
            return
        await self._gathered.wait()
        peers = [peer for peer in self._peers if peer.send_changes(changes)]
        await asyncio.gather(*(self._confirm(peer) for peer in peers))
        await self._wait_for_one()

    async def reload(self) -> None:
        """Have every nameserver take a new snapshot. Returns once they all serve it."""
        peers, self._peers = self._peers, set()
        self._gather()
        for peer in peers:
            self._outlived[peer.pid] = _pidfd(peer.pid)
            peer.leave()  # it comes back at once
        await self._gathered.wait()
        await asyncio.gather(*(self._confirm(peer) for peer in self._peers))
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
            _kill(pid, pidfd)
            _close(pidfd)
        self._outlived.clear()
        self._gathered.set()

    async def _confirm(self, peer: _Peer) -> None:
        """Wait until *peer* has acknowledged everything sent so far, or make an end of it."""
        target: int | None = None
        while not peer.gone:
            if target is None and not peer.loading:
                target = peer.sent
            if target is not None and peer.acknowledged >= target:
                return
            try:
                async with asyncio.timeout(ACK_DEADLINE):
                    await peer.wait_progress()
            except TimeoutError:
                if peer.acknowledged < peer.sent and not peer.gone:
                    peer.put_down()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, uid = _credentials(writer)
        if uid not in (os.getuid(), 0):
            _log.error("stranger on the feed socket turned away", pid=pid, uid=uid)
            writer.close()
            return
        try:
            async with asyncio.timeout(ACK_DEADLINE):
                peer = _Peer(pid, writer, serving=bool((await read(reader, MAX_MESSAGE))["serving"]))
        except (*_BROKEN, TimeoutError):
            writer.close()
            return
        self._peers.add(peer)
        _close(self._outlived.pop(pid, -1))
        if len(self._peers) >= self._expected:
            self._gathered.set()
        loading = asyncio.create_task(self._load(peer))
        try:
            while True:
                self._take(peer, await read(reader, MAX_MESSAGE))
        except _BROKEN:
            # It never hangs up by itself: it is dead, or as good as dead, and must not answer from old data.
            if not peer.leaving:
                peer.kill()
                self._lost()
        finally:
            self._peers.discard(peer)
            loading.cancel()
            peer.close()

    def _take(self, peer: _Peer, message: dict[str, Any]) -> None:
        if "ack" in message:
            peer.acknowledge(int(message["ack"]))
            self._progress.set()
        elif "counts" in message:
            for count in parse_counts(message["counts"], self._apexes):
                self._counted(count)
        else:
            number, packet = parse_packet(message)
            self._answer(packet, lambda reply: peer.send_reply(Reply(number, reply)))

    async def _load(self, peer: _Peer) -> None:
        """Send *peer* the snapshot, then what was committed meanwhile, and let it take part."""
        while True:
            try:
                peer.finish_loading(await self._send_snapshot(peer))
            except Exception:  # noqa: BLE001  # the store failed us; what the nameserver holds is better than nothing
                if peer.writer.is_closing():  # no, it died itself, which `_attend` sees as well
                    return
                _log.exception("snapshot failed; beginning it anew")
                await asyncio.sleep(SNAPSHOT_RETRY)
            else:
                return

    async def _send_snapshot(self, peer: _Peer) -> dict[Name, int]:
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


@dataclass(eq=False)
class _Peer:
    """One connected nameserver: what it was sent and what it has acknowledged, both counted in frames."""

    pid: int
    writer: asyncio.StreamWriter
    serving: bool
    sent: int = 0
    acknowledged: int = 0
    gone: bool = False
    leaving: bool = False
    _serials: dict[Name, int] = field(default_factory=dict)
    _pending: dict[Name, Change] | None = field(default_factory=dict)
    _progress: asyncio.Event = field(default_factory=asyncio.Event)
    _served_from: int = 0
    _pidfd: int = -1

    def __post_init__(self) -> None:
        self._pidfd = _pidfd(self.pid)

    def send(self, frame: Frame) -> None:
        self.sent += 1
        self.writer.write(render_frame(self.sent, frame))

    def send_reply(self, reply: Reply) -> None:
        """Send *reply*, unless the nameserver, and whoever waits there, is gone."""
        if not self.gone:
            self.send(reply)

    @property
    def answers(self) -> bool:
        """Whether it answers queries from all that it was told to serve."""
        return self.serving and not self.loading and not self.gone and self.acknowledged >= self._served_from

    @property
    def loading(self) -> bool:
        return self._pending is not None

    def send_changes(self, changes: Sequence[Change]) -> bool:
        """
        Send *changes*, now or behind the snapshot. Returns whether the nameserver answers queries meanwhile.

        One that is loading answers only if it outlived an earlier control process, and then from old data.
        """
        for change in changes:
            if self._pending is None:
                self._send_news(change)
            else:
                earlier = self._pending.get(change.apex)
                self._pending[change.apex] = _join(earlier, change) if earlier is not None else change
        return self.serving

    def finish_loading(self, serials: dict[Name, int]) -> None:
        """Send what came while the snapshot went out and is not part of it, and only then let it be served."""
        self._serials = serials
        pending, self._pending = self._pending or {}, None
        for change in pending.values():
            self._send_news(change)
        self.send(End())
        self._served_from = self.sent
        self.serving = True
        self._progress.set()

    def _send_news(self, change: Change) -> None:
        """Send *change* in pieces, unless it is older than what was sent before."""
        if change.serial > self._serials.get(change.apex, 0):
            self._serials[change.apex] = change.serial
            for piece in change.pieces(MAX_NAMES):
                self.send(piece)

    async def drain(self) -> None:
        """Wait until it takes more. One that hangs must not keep a transaction of the store open for ever."""
        try:
            async with asyncio.timeout(ACK_DEADLINE):
                await self.writer.drain()
        except TimeoutError:
            self.put_down()
            raise ConnectionAbortedError from None

    def acknowledge(self, count: int) -> None:
        """Raises `ValueError` for what cannot be: whoever repeats itself would keep everybody waiting for ever."""
        if not self.acknowledged < count <= self.sent:
            raise ValueError("an acknowledgement of nothing")
        self.acknowledged = count
        self._progress.set()

    async def wait_progress(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    def put_down(self) -> None:
        """Kill it because it hangs."""
        _log.error("nameserver does not acknowledge; killing it so that it starts afresh", pid=self.pid)
        self.kill()

    def kill(self) -> None:
        _kill(self.pid, self._pidfd)
        self.abandon()

    def leave(self) -> None:
        """Hang up because *we* stop: the nameserver is fine and goes on."""
        self.leaving = True
        self.abandon()

    def abandon(self) -> None:
        self.gone = True
        self._progress.set()
        self.writer.transport.abort()

    def close(self) -> None:
        self.abandon()
        _close(self._pidfd)
        self._pidfd = -1


def _join(earlier: Change, later: Change) -> Change:
    """One change of a zone that has the effect of both."""
    return replace(later, previous=earlier.previous, names={**earlier.names, **later.names})


def _credentials(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """Process and user id at the other end of a Unix socket, as the kernel vouches for them."""
    peer: socket.socket = writer.get_extra_info("socket")
    pid, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return pid, uid


def _pidfd(pid: int) -> int:
    """A hold on a process, which cannot mean a stranger that got the same id later; -1 if there is none to be had."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return -1


def _kill(pid: int, pidfd: int) -> None:
    with contextlib.suppress(OSError):
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def _close(pidfd: int) -> None:
    if pidfd >= 0:
        os.close(pidfd)
