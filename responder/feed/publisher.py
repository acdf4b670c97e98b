"""
The control process's end of the feed: it sends each change to every nameserver, and knows when all of them serve it.

Theory of operation
-------------------
`publish` is called after a transaction was committed. It sends the change to every nameserver and returns when each of
them has acknowledged it, or is dead. Only then does the API answer "200".

    publish(change)
       |
       +--> Peer 1: frames 7, 8       ack 7, ack 8         it serves the change
       +--> Peer 2: frames 3, 4       ack 3, then nothing  it is killed after 3 s; wait for its death
       +--> Peer 3: loads a snapshot  nothing yet          the change is sent after the snapshot
       |
    return: no nameserver answers from the state before the change

*Acknowledgements.* Each nameserver has its own count of frames. `Peer.confirm` waits until the number of acknowledged
frames reaches the number that was sent when the wait began. The deadline is 3 s for the whole, and 1 ms more for each
name. A nameserver that misses it is killed, because a stale answer is worse than none: a resolver that gets no answer
asks another nameserver, but it accepts a stale answer. The wait ends with the death, since until then the nameserver
may wake up and answer.

*Catching up.* A nameserver that connects, new or after a restart of this process, is sent a snapshot first. The
snapshot is the state of the database at one instant. Changes that are published meanwhile are kept back
(`Peer.send_changes`). After the snapshot, those that are not part of it are sent, which their serials show, and then
`End`, which has all of it served. So no change is lost, and no zone goes back to an older serial.

*After a restart of this process*, the nameservers still answer from what the last process sent. Until all of them are
back, no change is published: one that does not come back within 5 s is killed (`_gather`). The supervisor passes on
which nameservers were running (*outlived*).

*Spares* are nameservers that do not read packets yet. Changes wait for them as for all others, because they may begin
to answer at any time. The supervisor reports which nameservers answer (`answers`). If none does, `publish` fails with
`Unserved`: the change is stored, but no one serves it.

*Checks.* While there are no changes, `check` sends an empty frame now and then, to find nameservers that hang.
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
from responder.feed.frames import (
    Begin,
    Check,
    Keys,
    Packet,
    PacketReply,
    Sandbox,
    Vouch,
    parse_hello,
    parse_packet,
    read,
)
from responder.feed.peer import Peer
from responder.feed.relay import Deliver, TakePacket
from responder.logs import Outage
from responder.names import Name

RECONNECT_DEADLINE = 5.0
"""Seconds that a new control process waits for the nameservers of the old one to connect again."""

REPLACEMENT_DEADLINE = 5.0
"""Seconds that a change waits until a nameserver answers queries, if the last one has just died."""

SNAPSHOT_RETRY = 0.5
"""Seconds until the next attempt to read a snapshot from the store, after one failed."""

MAX_HELD = 512
"""Packets that are kept until they can be answered: as many as four nameservers have under way."""

MAX_MESSAGE = 144 << 10
"""Octets of the longest message that is accepted from a nameserver, which may be under the control of an attacker. The
longest valid message is a packet of `wire.MAX_SIGNED` octets with a draft as long as TCP can carry, in hexadecimal."""

SnapshotSource = Callable[[], AsyncGenerator[Change, None]]
"""Yields changes that together have the serial and all names of every zone, as they were at one instant."""

_GONE = (asyncio.IncompleteReadError, ConnectionError)
_BROKEN = (*_GONE, ValueError, KeyError, TypeError, OverflowError)
"""What reading from a peer may raise: it is dead, or it sends messages that no nameserver sends."""

_log = structlog.get_logger("feed")


class Publisher:
    """Sends every change to every nameserver, and waits until all of them serve it."""

    def __init__(
        self,
        statics: Iterable[Static],
        snapshot: SnapshotSource | None = None,
        *,
        nameservers: int,
        outlived: Iterable[int] = (),
        elders: Iterable[int] = (),
        kill: Callable[[int], None],
        lost: Callable[[], object] = lambda: None,
        counted: Callable[[Count], object] = lambda _: None,
    ) -> None:
        """
        *nameservers* is the number of them that are to answer queries. *outlived* are the process ids of nameservers
        that were running before, and may answer from old data. So may *elders*, which end by themselves: changes wait
        for that, without a deadline. Without a *snapshot*, nameservers wait for `read_from`.

        *kill* has the supervisor kill a process; call `bury` when it is dead. *lost* is called after each death, and
        *counted* with each number that a nameserver has counted.
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
        self._take_packet: TakePacket = self._hold
        self._held: list[tuple[Packet, Deliver]] = []
        self._peers: dict[int, Peer] = {}
        self._answering: set[int] = set()  # process ids
        self._tasks: set[asyncio.Task[None]] = set()
        self._outlived = set(outlived)  # those that have not connected again
        self._elders = set(elders)
        self._gathered = asyncio.Event()
        self._gathering: asyncio.TimerHandle | None = None
        self._progress = asyncio.Event()  # set when another nameserver may be answering
        self._outage = Outage(_log, "no nameserver can have a snapshot", "nameservers can have snapshots again")
        self._gather()

    async def stop(self) -> None:
        """Close the connections to the nameservers, which continue to answer."""
        if self._gathering is not None:
            self._gathering.cancel()
        for peer in self._peers.values():
            peer.leave()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def admit(self, pid: int, feed: socket.socket) -> None:
        """Serve the feed of the nameserver with that process id, which is at the other end of the socket *feed*."""
        reader, writer = await asyncio.open_unix_connection(sock=feed)
        peer = self._peers[pid] = Peer(pid, writer, self._kill)
        task = asyncio.create_task(self._attend(peer, reader))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answers(self, pid: int) -> None:
        """Note that this nameserver answers queries, so it is not a spare (any more)."""
        self._answering.add(pid)
        self._progress.set()

    def bury(self, pid: int) -> None:
        """Note that this nameserver is dead. Changes do not wait for it any more."""
        self._answering.discard(pid)
        if (peer := self._peers.pop(pid, None)) is not None:
            peer.leave()
        self._is_back(pid)
        self._lost()

    def lag(self) -> tuple[int, int]:
        """How many nameservers answer queries, and how many frames the slowest of all has not acknowledged."""
        current = [peer for peer in self._peers.values() if peer.is_current]
        behind = max((peer.sent - peer.acknowledged for peer in current), default=0)
        return sum(peer.pid in self._answering for peer in current), behind

    def sandbox(self) -> str:
        """What all answering nameservers have given up, as text that begins with "ok", "incomplete" or "unknown"."""
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
        """Have every nameserver that hangs killed. Resolvers would wait for its answers in vain."""
        peers = [peer for peer in self._peers.values() if peer.is_current]
        for peer in peers:
            peer.send(Check())
        await asyncio.gather(*(peer.confirm() for peer in peers))

    async def publish(self, changes: Sequence[Change]) -> None:
        """Make *changes* live. Returns when every nameserver that may answer queries serves them."""
        if not changes:
            return
        await self._gathered.wait()
        peers = [peer for peer in self._peers.values() if peer.send_changes(changes)]
        await asyncio.gather(*(peer.confirm() for peer in peers))
        await self._wait_for_one()

    async def settle(self) -> None:
        """Wait until every nameserver that may answer queries serves everything that was published so far."""
        await self._gathered.wait()
        await asyncio.gather(*(peer.confirm() for peer in self._peers.values() if peer.loaded))

    async def reload(self) -> None:
        """Send every nameserver a new snapshot. Returns when all of them serve it."""
        await self._gathered.wait()
        for peer in self._peers.values():
            self._load_anew(peer)
        await asyncio.gather(*(peer.confirm() for peer in self._peers.values() if peer.loaded))
        await self._wait_for_one()

    async def _wait_for_one(self) -> None:
        """Wait until a nameserver answers queries. Raises `Unserved` if none does in time: the change is not live."""
        try:
            async with asyncio.timeout(REPLACEMENT_DEADLINE):
                while self._expected and not self.lag()[0]:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise Unserved("it is stored, but no nameserver is answering now: try again later") from None

    def rekey(self, keys: tuple[bytes, ...]) -> None:
        """Have every nameserver make and check cookies with *keys*, including those that connect later."""
        self._keys = Keys(keys)
        for peer in self._peers.values():
            peer.send(self._keys)

    def read_from(self, snapshot: SnapshotSource) -> None:
        """Read snapshots for nameservers from *snapshot*. Call this once."""
        self._snapshot.set_result(snapshot)

    def vouch(self, seconds: float) -> None:
        """
        Have every nameserver treat values and grants as current for *seconds* from now, also those that connect later.

        After that, they answer SERVFAIL to questions that depend on these. If this is never called, they always answer.
        """
        self._vouched_until = time.monotonic() + seconds
        for peer in self._peers.values():
            peer.send(Vouch(self._vouched_until))

    def take_packets_with(self, take: TakePacket) -> None:
        """
        From now on, give *take* the packets that nameservers pass on. Packets that came before the first call are taken
        first: an earlier control process may have left them without a reply.
        """
        self._take_packet = take
        held, self._held = self._held, []
        for packet, deliver in held:
            take(packet, deliver)

    def _hold(self, packet: Packet, deliver: Deliver) -> None:
        if len(self._held) < MAX_HELD:
            self._held.append((packet, deliver))

    def _gather(self) -> None:
        """Hold changes back until all nameservers that were running before have connected again, or are dead."""
        if not self._outlived:
            self._look_whether_gathered()
            return
        self._gathering = asyncio.get_running_loop().call_later(RECONNECT_DEADLINE, self._end_gathering)

    def _end_gathering(self) -> None:
        """Kill the nameservers that have not connected again: they hang, and might wake up and answer from old data."""
        for pid in self._outlived:
            _log.error("nameserver does not connect again; killing it so that a new one starts", pid=pid)
            self._kill(pid)
        self._gather()

    def _is_back(self, pid: int) -> None:
        """Do not wait for this nameserver any more: it has connected again, or is dead."""
        self._outlived.discard(pid)
        self._elders.discard(pid)
        self._look_whether_gathered()

    def _look_whether_gathered(self) -> None:
        if not self._outlived and self._gathering is not None:
            self._gathering.cancel()
        if not self._outlived and not self._elders:
            self._gathered.set()

    async def _attend(self, peer: Peer, reader: asyncio.StreamReader) -> None:
        """Take the messages of the nameserver until it ends, or sends an invalid one."""
        try:
            hello = parse_hello(await read(reader, MAX_MESSAGE))
            peer.loaded, peer.sandbox = hello.loaded, hello.sandbox
            self._is_back(peer.pid)
            self._load_anew(peer)
            while True:
                self._take(peer, await read(reader, MAX_MESSAGE))
        except _BROKEN as fault:
            # A nameserver never closes its feed: it is dead or broken, and must not answer from old data.
            if not peer.gone:
                if not isinstance(fault, _GONE):
                    reason = str(fault)[:100]
                    _log.error("nameserver sends invalid messages; killing it", pid=peer.pid, reason=reason)
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
            self._take_packet(packet, lambda reply: peer.send_reply(PacketReply(number, reply)))

    def _load_anew(self, peer: Peer) -> None:
        peer.begin_loading(asyncio.create_task(self._load(peer)))

    async def _load(self, peer: Peer) -> None:
        """Send *peer* a snapshot and the changes that were published meanwhile. If that fails, try again."""
        while True:
            try:
                peer.finish_loading(await self._send_snapshot(peer))
            except Exception as fault:  # noqa: BLE001  # a fault of the store; the nameserver keeps its zones
                if peer.writer.is_closing():  # the nameserver died, which `_attend` notices as well
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
        """Send a snapshot without its end. Returns the serial that each zone has in it."""
        snapshot = await asyncio.shield(self._snapshot)  # other tasks wait for it, too
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
