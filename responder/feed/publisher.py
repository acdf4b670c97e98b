"""
The control process's end of the feed: it sends every nameserver what changed, and knows when all of them serve it.

A nameserver that does not acknowledge in time is killed (the supervisor starts it afresh), because a stale one is
worse than a missing one: resolvers retry elsewhere on silence, but take a stale answer as final. Spares count like all
others, as they may answer at any time; the supervisor, which decides that, reports which ones do.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import structlog

from responder.dns.counts import Count, parse_counts
from responder.dns.zone import Change, Static
from responder.errors import ResponderError, Unserved
from responder.feed.frames import Begin, Check, Keys, Packet, Reply, Sandbox, Vouch, parse_hello, parse_packet, read
from responder.feed.peer import Peer
from responder.feed.relay import Answer, Deliver
from responder.logs import Outage
from responder.names import Name

GATHER_DEADLINE = 5.0
"""Seconds a new control process waits for the nameservers that outlived the old one to come back to it."""

REPLACEMENT_DEADLINE = 5.0
"""Seconds that a change waits for a nameserver to answer at all, should the last one just have died."""

SNAPSHOT_RETRY = 0.5
"""Seconds until a snapshot that the store failed to give is asked for anew."""

MAX_HELD = 512
"""Packets kept until there is somebody to answer them: all that four nameservers have under way."""

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
    """The control process's end: it sends every change to every nameserver, and knows when all of them have it."""

    def __init__(
        self,
        statics: Iterable[Static],
        snapshot: SnapshotSource | None = None,
        *,
        nameservers: int,
        outlived: Iterable[int] = (),
        kill: Callable[[int], None],
        lost: Callable[[], object] = lambda: None,
        counted: Callable[[Count], object] = lambda _: None,
    ) -> None:
        """
        Without a *snapshot*, nameservers wait for `read_from`. *nameservers* are expected to answer. Those of
        *outlived* (process ids) run already, and may answer from what they knew before.
        *kill* has one of them killed, by its process id, of which `bury` is to hear; *lost* is called whenever one is
        dead, *counted* with all that they have counted since the last time.
        """
        self._statics = tuple(statics)
        self._apexes = {str(static.apex) for static in self._statics}
        self._counted = counted
        self._snapshot: asyncio.Future[SnapshotSource] = asyncio.get_running_loop().create_future()
        if snapshot is not None:
            self.read_from(snapshot)
        self._expected = nameservers
        self._kill = kill
        self._lost = lost
        self._keys = Keys(())
        self._vouched_until: float | None = None
        self._answer: Answer = self._hold
        self._held: list[tuple[Packet, Deliver]] = []
        self._peers: dict[int, Peer] = {}
        self._answering: set[int] = set()  # process ids
        self._tasks: set[asyncio.Task[None]] = set()
        self._outlived = set(outlived)  # those of them that did not come back so far
        self._gathered = asyncio.Event()
        self._gathering: asyncio.TimerHandle | None = None
        self._progress = asyncio.Event()  # set whenever one more nameserver may be answering
        self._outage = Outage(_log, "no nameserver can have a snapshot", "nameservers can have snapshots again")
        self._gather()

    async def stop(self) -> None:
        """Let go of the nameservers; they go on answering."""
        if self._gathering is not None:
            self._gathering.cancel()
        for peer in self._peers.values():
            peer.leave()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def admit(self, pid: int, feed: socket.socket) -> None:
        """Have the nameserver with that process id follow, which is at the other end of *feed*."""
        reader, writer = await asyncio.open_unix_connection(sock=feed)
        peer = self._peers[pid] = Peer(pid, writer, self._kill)
        task = asyncio.create_task(self._attend(peer, reader))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answers(self, pid: int) -> None:
        """Note that this nameserver answers queries: it is not a spare, or is one no more."""
        self._answering.add(pid)
        self._progress.set()

    def bury(self, pid: int) -> None:
        """Note that this nameserver is dead: from now on it is not waited for."""
        self._answering.discard(pid)
        if (peer := self._peers.pop(pid, None)) is not None:
            peer.leave()
        self._is_back(pid)
        self._lost()

    def lag(self) -> tuple[int, int]:
        """How many nameservers answer queries, and the frames that the slowest of all has yet to acknowledge."""
        current = [peer for peer in self._peers.values() if peer.is_current]
        behind = max((peer.sent - peer.acknowledged for peer in current), default=0)
        return sum(peer.pid in self._answering for peer in current), behind

    def sandbox(self) -> str:
        """What all nameservers that answer queries have given up, after "ok" or what is wrong with it."""
        given_up = [peer.sandbox for peer in self._peers.values() if peer.pid in self._answering]
        if not given_up:
            return "unknown: no nameserver answers"
        common = Sandbox(
            landlock=min(each.landlock for each in given_up),
            seccomp=all(each.seccomp for each in given_up),
            user=min(each.user for each in given_up),
        )
        return f"{'ok' if common.is_complete else 'incomplete'}: {common}"

    async def check(self) -> None:
        """Make an end of every nameserver that hangs: it is of no use to anybody, and resolvers wait for it in vain."""
        peers = [peer for peer in self._peers.values() if peer.is_current]
        for peer in peers:
            peer.send(Check())
        await asyncio.gather(*(peer.confirm() for peer in peers))

    async def publish(self, changes: Sequence[Change]) -> None:
        """Make *changes* live. Returns once every nameserver that answers queries, or may, answers from them."""
        if not changes:
            return
        await self._gathered.wait()
        peers = [peer for peer in self._peers.values() if peer.send_changes(changes)]
        await asyncio.gather(*(peer.confirm() for peer in peers))
        await self._wait_for_one()

    async def settle(self) -> None:
        """Return once every nameserver that answers queries, or may, answers from what it was sent so far."""
        await self._gathered.wait()
        await asyncio.gather(*(peer.confirm() for peer in self._peers.values() if peer.loaded))

    async def reload(self) -> None:
        """Have every nameserver take a new snapshot. Returns once they all serve it."""
        await self._gathered.wait()
        for peer in self._peers.values():
            self._load_anew(peer)
        await asyncio.gather(*(peer.confirm() for peer in self._peers.values() if peer.loaded))
        await self._wait_for_one()

    async def _wait_for_one(self) -> None:
        """Raise `Unserved` if no nameserver comes to answer at all: a change that none of them serves is not live."""
        try:
            async with asyncio.timeout(REPLACEMENT_DEADLINE):
                while self._expected and not self.lag()[0]:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise Unserved("it is stored, but no nameserver is answering just now: try again in a while") from None

    def rekey(self, keys: tuple[bytes, ...]) -> None:
        """Have every nameserver, those yet to come included, make and check cookies with *keys*."""
        self._keys = Keys(keys)
        for peer in self._peers.values():
            peer.send(self._keys)

    def read_from(self, snapshot: SnapshotSource) -> None:
        """From now on, give nameservers what *snapshot* has. Call it once."""
        self._snapshot.set_result(snapshot)

    def vouch(self, seconds: float) -> None:
        """
        Have every nameserver, those yet to come included, answer for values and grants for *seconds* from now on.

        After that they answer SERVFAIL where these decide. If this is never called, they always answer.
        """
        self._vouched_until = time.monotonic() + seconds
        for peer in self._peers.values():
            peer.send(Vouch(self._vouched_until))

    def answer_packets(self, answer: Answer) -> None:
        """
        From now on, *answer* what nameservers pass on. What they passed on before this was ever called comes first: it
        may be what an earlier control process did not answer.
        """
        self._answer = answer
        held, self._held = self._held, []
        for packet, deliver in held:
            answer(packet, deliver)

    def _hold(self, packet: Packet, deliver: Deliver) -> None:
        if len(self._held) < MAX_HELD:
            self._held.append((packet, deliver))

    def _gather(self) -> None:
        """Wait with changes until all that run already are back, or dead."""
        if not self._outlived:
            self._gathered.set()
            return
        self._gathering = asyncio.get_running_loop().call_later(GATHER_DEADLINE, self._end_gathering)

    def _end_gathering(self) -> None:
        """Go on without those that did not come. What still runs of them hangs, and would wake up with old answers."""
        for pid in self._outlived:
            _log.error("nameserver does not come back; killing it so that it starts afresh", pid=pid)
            self._kill(pid)
        self._gather()

    def _is_back(self, pid: int) -> None:
        """Note that there is no need to wait for this one: it is back, or dead."""
        self._outlived.discard(pid)
        if not self._outlived:
            self._gathered.set()
            if self._gathering is not None:
                self._gathering.cancel()

    async def _attend(self, peer: Peer, reader: asyncio.StreamReader) -> None:
        """Take the messages of the nameserver, for as long as they are valid."""
        try:
            hello = parse_hello(await read(reader, MAX_MESSAGE))
            peer.loaded, peer.sandbox = hello.loaded, hello.sandbox
            self._is_back(peer.pid)
            self._load_anew(peer)
            while True:
                self._take(peer, await read(reader, MAX_MESSAGE))
        except _BROKEN as fault:
            # It never hangs up by itself: it is dead, or as good as dead, and must not answer from old data.
            if not peer.gone:
                if not isinstance(fault, _GONE):
                    reason = str(fault)[:100]
                    _log.error("nameserver sends what makes no sense; killing it", pid=peer.pid, reason=reason)
                peer.sever()
        finally:
            peer.stop_loading()
            peer.writer.transport.abort()

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

    def _load_anew(self, peer: Peer) -> None:
        peer.begin_loading(asyncio.create_task(self._load(peer)))

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
        snapshot = await asyncio.shield(self._snapshot)  # others wait for it, too
        if self._keys.keys:
            peer.send(self._keys)
        if self._vouched_until is not None:
            peer.send(Vouch(self._vouched_until))
        peer.send(Begin(self._statics))
        serials: dict[Name, int] = {}
        async with aclosing(snapshot()) as changes:
            async for change in changes:
                serials[change.apex] = change.serial
                peer.send(change)
                await peer.drain()
        return serials
